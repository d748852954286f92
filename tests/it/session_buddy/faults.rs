//! The real server killed, restarted, locked, and behind a faulty connection.

use super::real::{self, Profile, Server};
use crate::proxy::{Fault, Proxy};
use mahavishnu::mcp_client::{ClientError, Unclear};
use mahavishnu::session_buddy::PeerError;
use std::time::{Duration, Instant};

#[tokio::test]
async fn after_a_kill_and_a_restart_the_same_client_goes_on_and_nothing_is_lost() {
    for profile in Profile::BOTH {
        if real::venv().is_none() {
            return real::skipped("after_a_kill_and_a_restart_the_same_client_goes_on");
        }
        let home = tempfile::tempdir().expect("a temporary folder");
        let mut server = Server::start(profile, home.path());
        let buddy = real::buddy(server.port());
        let first = real::outgoing("stored before the kill");
        buddy
            .store(&first, real::soon())
            .await
            .expect("it is stored");
        let losses = buddy.client().losses();
        server.kill();
        let down = buddy
            .store(&real::outgoing("while down"), real::soon())
            .await;
        assert!(
            matches!(down, Err(PeerError::Down(_))),
            "{profile:?} {down:?}"
        );
        server.restart();
        // The session is unknown to the new server: renewed, and the call repeated, without the caller's doing.
        let second = real::outgoing("stored after the restart");
        buddy
            .store(&second, real::soon())
            .await
            .expect("it is stored");
        assert_eq!(buddy.client().losses(), losses + 1);
        let markers = [first.marker, second.marker];
        let presence = buddy
            .presence(&markers, real::soon())
            .await
            .expect("it lists");
        assert_eq!(presence, Default::default(), "{profile:?}");
    }
}

#[tokio::test]
async fn a_locked_database_is_told_as_such() {
    if real::venv().is_none() {
        return real::skipped("a_locked_database_is_told_as_such");
    }
    let home = tempfile::tempdir().expect("a temporary folder");
    let holder = Server::start(Profile::Default, home.path());
    let owner = real::buddy(holder.port());
    let item = real::outgoing("the owner's");
    owner
        .store(&item, real::soon())
        .await
        .expect("it is stored");
    let other = Server::start_beside(&holder);
    let late = real::buddy(other.port());
    let stored = late.store(&real::outgoing("late"), real::soon()).await;
    assert!(matches!(stored, Err(PeerError::Locked(_))), "{stored:?}");
    let there = late.is_there(&item.marker, real::soon()).await;
    assert!(matches!(there, Err(PeerError::Locked(_))), "{there:?}");
    let listed = late.list_all(real::soon()).await;
    assert!(matches!(listed, Err(PeerError::Locked(_))), "{listed:?}");
    assert_eq!(owner.is_there(&item.marker, real::soon()).await, Ok(true));
}

#[tokio::test]
async fn a_broken_answer_is_unclear_and_asking_clears_it_up() {
    for profile in Profile::BOTH {
        let Some(server) = real::shared(profile) else {
            return real::skipped("a_broken_answer_is_unclear_and_asking_clears_it_up");
        };
        let proxy = Proxy::start(server.port()).await;
        let buddy = real::buddy(proxy.port());
        buddy.probe(real::soon()).await.expect("it answers");
        for fault in [
            Fault::CutAfter(0),
            Fault::CutAfter(20),
            Fault::CutBodyAfter(0),
            Fault::CutBodyAfter(30),
        ] {
            let item = real::outgoing("cut off in the middle");
            proxy.set(fault);
            let began = Instant::now();
            let stored = buddy.store(&item, real::soon()).await;
            assert!(
                matches!(
                    &stored,
                    Err(PeerError::Unclear(ClientError::Unclear {
                        cause: Unclear::Broken(_),
                        ..
                    }))
                ),
                "{profile:?} {fault:?} {stored:?}"
            );
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "it failed when it broke"
            );
            proxy.set(Fault::None);
            assert_eq!(
                buddy.is_there(&item.marker, real::soon()).await,
                Ok(true),
                "{fault:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_unclear_at_the_deadline() {
    let Some(server) = real::shared(Profile::Full) else {
        return real::skipped("an_answer_that_does_not_come_is_unclear_at_the_deadline");
    };
    let proxy = Proxy::start(server.port()).await;
    let buddy = real::buddy(proxy.port());
    buddy.probe(real::soon()).await.expect("it answers");
    for fault in [Fault::HalfOpen, Fault::Delay(Duration::from_secs(600))] {
        let item = real::outgoing("held back for long");
        proxy.set(fault);
        let stored = buddy
            .store(&item, Instant::now() + Duration::from_secs(3))
            .await;
        assert!(
            matches!(
                &stored,
                Err(PeerError::Unclear(ClientError::Unclear {
                    cause: Unclear::Deadline,
                    ..
                }))
            ),
            "{fault:?} {stored:?}"
        );
        proxy.set(Fault::None);
        // The server may still be at it; it is there in the end, once.
        let deadline = real::soon();
        while buddy.is_there(&item.marker, real::soon()).await != Ok(true) {
            assert!(Instant::now() < deadline, "the request had passed");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn a_short_delay_and_an_answer_that_comes_twice_do_no_harm() {
    let Some(server) = real::shared(Profile::Full) else {
        return real::skipped("a_short_delay_and_an_answer_that_comes_twice_do_no_harm");
    };
    let proxy = Proxy::start(server.port()).await;
    let buddy = real::buddy(proxy.port());
    for fault in [Fault::Delay(Duration::from_millis(300)), Fault::AnswerTwice] {
        buddy.probe(real::soon()).await.expect("it answers");
        proxy.set(fault);
        let item = real::outgoing("answered in the end");
        buddy
            .store(&item, real::soon())
            .await
            .expect("it is stored");
        proxy.set(Fault::None);
        let presence = buddy
            .presence(&[item.marker], real::soon())
            .await
            .expect("it lists");
        assert_eq!(presence, Default::default(), "{fault:?}");
    }
}

#[tokio::test]
async fn a_connection_that_closes_unread_stores_nothing() {
    let Some(server) = real::shared(Profile::Full) else {
        return real::skipped("a_connection_that_closes_unread_stores_nothing");
    };
    let proxy = Proxy::start(server.port()).await;
    let buddy = real::buddy(proxy.port());
    buddy.probe(real::soon()).await.expect("it answers");
    proxy.set(Fault::RefuseUnread);
    let item = real::outgoing("never arrives");
    let stored = buddy.store(&item, real::soon()).await;
    // A client cannot know that nobody read what it wrote.
    assert!(
        matches!(stored, Err(PeerError::Unclear(_) | PeerError::Down(_))),
        "{stored:?}"
    );
    proxy.set(Fault::None);
    assert_eq!(buddy.is_there(&item.marker, real::soon()).await, Ok(false));
}
