//! Over HTTP: wrong places, faulty answers, lost sessions.

use super::scripted::{Answer, Request, Scripted, done, handshake, json_answer};
use super::{nothing, soon};
use mahavishnu::error::Fault;
use mahavishnu::mcp_client::{ClientError, ClientSettings, Endpoint, McpClient, NotSent, Unclear};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

fn client(url: &str) -> McpClient {
    let endpoint = Endpoint::Http {
        url: url.to_owned(),
        headers: vec![(
            "authorization".to_owned(),
            "Bearer not-for-others".to_owned(),
        )],
    };
    McpClient::new(endpoint, ClientSettings::new("peer"))
}

async fn failure(url: &str) -> ClientError {
    let called = client(url).call("store", nothing(), soon()).await;
    called.expect_err("nothing there does the call")
}

fn cause(error: &ClientError) -> &NotSent {
    match error {
        ClientError::NotSent { cause, .. } => cause,
        other => panic!("it was sent: {other:?}"),
    }
}

fn page(status: u16) -> Answer {
    Some((
        status,
        "content-type: text/html\r\n".into(),
        "<html><h1>hello</h1></html>".into(),
    ))
}

#[tokio::test]
async fn a_web_page_is_not_an_mcp_server() {
    for status in [200, 404, 405] {
        let server = Scripted::start(move |_| page(status)).await;
        let error = failure(&server.url()).await;
        assert!(matches!(cause(&error), NotSent::NotMcp(_)), "{error:?}");
        assert!(
            error
                .problem()
                .hint
                .is_some_and(|hint| hint.contains("/mcp"))
        );
    }
}

#[tokio::test]
async fn a_redirect_to_another_origin_is_told_and_not_followed() {
    let target = Scripted::mcp(done).await;
    let there = target.url();
    for status in [301, 302, 307, 308] {
        let there = there.clone();
        let server = Scripted::start(move |_| {
            Some((status, format!("location: {there}\r\n"), String::new()))
        })
        .await;
        let error = failure(&server.url()).await;
        assert_eq!(
            cause(&error),
            &NotSent::Redirected(target.url()),
            "{status}"
        );
    }
    assert!(
        target.seen("initialize").is_empty(),
        "headers went to another origin"
    );
}

#[tokio::test]
async fn a_redirect_within_the_origin_that_keeps_the_method_is_followed() {
    let server =
        Scripted::start(
            |request: &Request| match (request.path.as_str(), request.method()) {
                ("/mcp", _) => Some((307, "location: /mcp/\r\n".into(), String::new())),
                (_, "tools/call") => done(request),
                _ => handshake(request),
            },
        )
        .await;
    let reply = client(&server.url()).call("store", nothing(), soon()).await;
    assert_eq!(reply.expect("it is done").text, "done");
}

#[tokio::test]
async fn a_wrong_port_bad_tls_and_a_bad_url_are_told() {
    let listener = TcpListener::bind(("127.0.0.1", 0))
        .await
        .expect("a port is free");
    let closed = listener.local_addr().expect("it is bound").port();
    drop(listener);
    let error = failure(&format!("http://127.0.0.1:{closed}/mcp")).await;
    assert!(matches!(cause(&error), NotSent::Connect(_)), "{error:?}");
    let plain = Scripted::mcp(done).await;
    let error = failure(&plain.url().replace("http:", "https:")).await;
    assert!(matches!(cause(&error), NotSent::Tls(_)), "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("scheme")));
    let error = failure("not a url").await;
    assert!(matches!(cause(&error), NotSent::Connect(_)), "{error:?}");
}

#[tokio::test]
async fn credentials_that_are_missing_are_asked_for() {
    for headers in ["", "www-authenticate: Bearer\r\n"] {
        let server = Scripted::start(|_| Some((401, headers.to_owned(), String::new()))).await;
        let error = failure(&server.url()).await;
        assert!(
            matches!(cause(&error), NotSent::Unauthorized(_)),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn faulty_answers_to_a_call_fail_at_once_and_say_whether_it_was_executed() {
    type Case = (
        &'static str,
        fn(&Request) -> Answer,
        fn(&ClientError) -> bool,
    );
    let cases: [Case; 7] = [
        (
            "a page",
            |_| page(200),
            |error| {
                matches!(
                    error,
                    ClientError::Unclear {
                        cause: Unclear::Garbage(_),
                        ..
                    }
                )
            },
        ),
        (
            "no JSON",
            |_| Some((200, "content-type: application/json\r\n".into(), "{".into())),
            |error| {
                matches!(
                    error,
                    ClientError::Unclear {
                        cause: Unclear::Garbage(_),
                        ..
                    }
                )
            },
        ),
        (
            "another id",
            |_| {
                json_answer(
                    200,
                    &json!({"jsonrpc": "2.0", "id": 4711, "result": {"content": []}}),
                )
            },
            |error| {
                matches!(
                    error,
                    ClientError::Unclear {
                        cause: Unclear::Garbage(_),
                        ..
                    }
                )
            },
        ),
        (
            "an error with a made-up id",
            |_| {
                json_answer(
                    400,
                    &json!({"jsonrpc": "2.0", "id": "server-error", "error": {"code": -32600, "message": "no"}}),
                )
            },
            |error| {
                matches!(
                    error,
                    ClientError::Refused {
                        code: Some(-32600),
                        ..
                    }
                )
            },
        ),
        (
            "500",
            |_| page(500),
            |error| {
                matches!(
                    error,
                    ClientError::Unclear {
                        cause: Unclear::Status(500),
                        ..
                    }
                )
            },
        ),
        (
            "429",
            |_| page(429),
            |error| {
                matches!(
                    error,
                    ClientError::NotSent {
                        cause: NotSent::TooManyCalls,
                        ..
                    }
                )
            },
        ),
        (
            "403",
            |_| page(403),
            |error| {
                matches!(
                    error,
                    ClientError::NotSent {
                        cause: NotSent::Unauthorized(_),
                        ..
                    }
                )
            },
        ),
    ];
    for (name, answer, expected) in cases {
        let server = Scripted::mcp(answer).await;
        let began = Instant::now();
        let error = failure(&server.url()).await;
        assert!(expected(&error), "{name}: {error:?}");
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{name} waited for its deadline"
        );
        // A refused request is sent once more over a new session, because the old one may be lost.
        let times = if name == "an error with a made-up id" {
            2
        } else {
            1
        };
        assert_eq!(server.seen("tools/call").len(), times, "{name}");
    }
}

/// The ways in which servers refuse a request whose session they have lost.
fn lost_sessions() -> Vec<(u16, &'static str, String)> {
    let json = |id, code: i32, message: &str| {
        json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}).to_string()
    };
    let (none, made_up) = (serde_json::Value::Null, json!("server-error"));
    vec![
        (404, "text/html", "<h1>gone</h1>".to_owned()),
        (
            404,
            "application/json",
            json(made_up, -32600, "Session not found"),
        ),
        (
            400,
            "text/plain",
            "Bad Request: No valid session ID provided".to_owned(),
        ),
        (
            400,
            "application/json",
            json(none.clone(), -32000, "Bad Request: Server not initialized"),
        ),
        (
            400,
            "application/json",
            json(none.clone(), -32001, "Session not found"),
        ),
        (
            400,
            "application/json",
            r#"{"error": "unknown session"}"#.to_owned(),
        ),
        (410, "text/plain", "Gone".to_owned()),
        (
            200,
            "application/json",
            json(none, -32600, "Invalid session"),
        ),
    ]
}

#[tokio::test]
async fn a_lost_session_is_renewed_and_the_call_repeated_once() {
    for (status, kind, body) in lost_sessions() {
        let server = Scripted::mcp({
            let (calls, body) = (AtomicUsize::new(0), body.clone());
            move |request| match calls.fetch_add(1, Ordering::SeqCst) {
                1 => Some((status, format!("content-type: {kind}\r\n"), body.clone())),
                _ => done(request),
            }
        })
        .await;
        let client = client(&server.url());
        for _ in 0..2 {
            let called = client.call("store", nothing(), soon()).await;
            called.unwrap_or_else(|error| panic!("{status} {body}: {error}"));
        }
        assert_eq!(server.seen("initialize").len(), 2, "{status} {body}");
        let calls = server.seen("tools/call");
        assert_eq!(calls.len(), 3);
        assert!(
            calls
                .iter()
                .all(|call| call.session.as_deref() == Some("s1"))
        );
        assert_eq!(client.losses(), 1);
    }
}

#[tokio::test]
async fn a_request_refused_again_is_reported_in_the_servers_words() {
    let server = Scripted::mcp(|_| {
        Some((
            400,
            "content-type: text/plain\r\n".into(),
            "no such argument".into(),
        ))
    })
    .await;
    let error = failure(&server.url()).await;
    assert!(matches!(&error, ClientError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("no such argument"), "{error}");
    assert_eq!(server.seen("tools/call").len(), 2);
}

#[tokio::test]
async fn a_session_that_is_lost_again_at_once_is_given_up() {
    let server = Scripted::mcp(|_| page(404)).await;
    let error = failure(&server.url()).await;
    assert_eq!(cause(&error), &NotSent::SessionLost);
    assert_eq!(server.seen("tools/call").len(), 2);
}

#[tokio::test]
async fn all_who_wait_share_one_connection_attempt() {
    let server = Scripted::mcp(done).await;
    let client = client(&server.url());
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let client = client.clone();
        calls.spawn(async move { client.call("store", nothing(), soon()).await });
    }
    while let Some(reply) = calls.join_next().await {
        assert_eq!(reply.expect("no panic").expect("it is done").text, "done");
    }
    assert_eq!(server.seen("initialize").len(), 1);
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_taken_back() {
    let server = Scripted::mcp(|_| None).await;
    let client = client(&server.url());
    let unanswered = client
        .call("store", nothing(), Instant::now() + Duration::from_secs(1))
        .await;
    assert!(
        matches!(
            unanswered,
            Err(ClientError::Unclear {
                cause: Unclear::Deadline,
                ..
            })
        ),
        "{unanswered:?}"
    );
    let deadline = soon();
    while server.seen("notifications/cancelled").is_empty() {
        assert!(Instant::now() < deadline, "the server was not told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let late = client.call("store", nothing(), Instant::now()).await;
    assert_eq!(cause(&late.expect_err("too late")), &NotSent::Deadline);
    assert_eq!(server.seen("tools/call").len(), 1);
}
