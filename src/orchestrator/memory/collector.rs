//! Fan-out: one request to many targets at once, under one deadline.
//!
//! The total time is the slowest target's or the deadline, never a sum. A target that fails, panics or is late affects its
//! own answer only. Not responsible for retries or for the meaning of the answers.

use crate::panic::{Panicked, catch};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// The result of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<R, E> {
    /// It answered.
    Ok(R),
    /// It failed.
    Failed(Failure<E>),
    /// It had not answered at the deadline; it was aborted.
    Late,
}

/// Why a target failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure<E> {
    /// The target returned an error.
    #[error(transparent)]
    Error(E),
    /// The request panicked, which is a defect of this program.
    #[error(transparent)]
    Panicked(Panicked),
}

/// Asks all `targets` at once and returns their answers, in the order of the targets.
///
/// # Cancel safety
///
/// Dropping the future aborts what still runs and loses the answers.
pub async fn fan_out<T, R, E, F, Fut>(
    targets: impl IntoIterator<Item = T>,
    deadline: Instant,
    ask: F,
) -> Vec<Answer<R, E>>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
    F: Fn(T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send,
{
    let mut running = FanOut::start(targets, deadline, ask);
    let mut answers: Vec<Answer<R, E>> = (0..running.len()).map(|_| Answer::Late).collect();
    while let Some((target, answer)) = running.next().await {
        answers[target] = answer;
    }
    answers
}

/// A fan-out in progress that yields each answer as it arrives. Dropping it aborts the remaining requests.
#[derive(Debug)]
pub struct FanOut<R, E> {
    tasks: JoinSet<(usize, Result<R, Failure<E>>)>,
    deadline: Instant,
    answered: Vec<bool>,
    /// The targets without an answer, once the deadline has passed.
    late: Option<VecDeque<usize>>,
}

impl<R: Send + 'static, E: Send + 'static> FanOut<R, E> {
    /// Asks all `targets` at once. Needs a tokio runtime.
    pub fn start<T, F, Fut>(targets: impl IntoIterator<Item = T>, deadline: Instant, ask: F) -> Self
    where
        T: Send + 'static,
        F: Fn(T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send,
    {
        let ask = Arc::new(ask);
        let mut tasks = JoinSet::new();
        for (at, target) in targets.into_iter().enumerate() {
            let ask = Arc::clone(&ask);
            // The panic is caught inside the task, so that its target is known. No state is shared with the task.
            tasks.spawn(async move {
                let answer = match catch(async { ask(target).await }).await {
                    Ok(answer) => answer.map_err(Failure::Error),
                    Err(panicked) => Err(Failure::Panicked(panicked)),
                };
                (at, answer)
            });
        }
        Self {
            deadline,
            answered: vec![false; tasks.len()],
            tasks,
            late: None,
        }
    }

    /// Returns how many targets were asked.
    pub fn len(&self) -> usize {
        self.answered.len()
    }

    /// Returns whether no targets were asked.
    pub fn is_empty(&self) -> bool {
        self.answered.is_empty()
    }

    /// Returns the next answer with its target's place; after the deadline, the late ones; then nothing.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no answer is lost.
    pub async fn next(&mut self) -> Option<(usize, Answer<R, E>)> {
        while self.late.is_none() {
            let joined = match timeout_at(self.deadline, self.tasks.join_next()).await {
                Ok(joined) => joined,
                // An answer that was ready in time counts even though the timer was polled first.
                Err(_) => self.tasks.try_join_next(),
            };
            match joined {
                Some(Ok((target, answer))) => return Some(self.take(target, answer)),
                // Tasks are cancelled only when the runtime ends; such a target stays unanswered, that is, late.
                Some(Err(_)) => {}
                None => self.give_up(),
            }
        }
        let target = self.late.as_mut()?.pop_front()?;
        Some((target, Answer::Late))
    }

    fn take(&mut self, target: usize, answer: Result<R, Failure<E>>) -> (usize, Answer<R, E>) {
        self.answered[target] = true;
        let answer = match answer {
            Ok(value) => Answer::Ok(value),
            Err(failure) => Answer::Failed(failure),
        };
        (target, answer)
    }

    fn give_up(&mut self) {
        self.tasks.abort_all();
        // Aborted tasks are not awaited: one that never yields must not delay the other answers.
        let unanswered = (0..self.answered.len()).filter(|&target| !self.answered[target]);
        self.late = Some(unanswered.collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tokio::time::sleep;

    const SECOND: Duration = Duration::from_secs(1);

    type Bad = Failure<&'static str>;

    #[tokio::test(start_paused = true)]
    async fn a_thousand_targets_of_a_second_take_a_second() {
        let start = Instant::now();
        let answers = fan_out(0..1_000, start + 10 * SECOND, |target| async move {
            sleep(SECOND).await;
            Ok::<_, Bad>(target)
        })
        .await;
        assert_eq!(answers, (0..1_000).map(Answer::Ok).collect::<Vec<_>>());
        // Tokio's timer rounds up to whole milliseconds.
        let took = start.elapsed();
        assert!(
            (SECOND..SECOND + Duration::from_millis(2)).contains(&took),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_hung_target_is_late_alone_and_costs_the_deadline() {
        let start = Instant::now();
        let answers = fan_out(0..1_000, start + 5 * SECOND, |target| async move {
            match target {
                500 => std::future::pending().await,
                _ => sleep(SECOND).await,
            }
            Ok::<_, Bad>(target)
        })
        .await;
        assert_eq!(answers[500], Answer::Late);
        let in_time = answers
            .iter()
            .filter(|answer| matches!(answer, Answer::Ok(_)));
        assert_eq!(in_time.count(), 999);
        let took = start.elapsed();
        assert!(
            (5 * SECOND..5 * SECOND + Duration::from_millis(2)).contains(&took),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failures_and_panics_stay_with_their_target() {
        let answers = fan_out(0..4, Instant::now() + SECOND, |target| {
            // Outside the future: asking itself panics.
            assert_ne!(target, 3, "no three");
            async move {
                match target {
                    1 => Err("refused"),
                    2 => panic!("boom {target}"),
                    _ => Ok(target),
                }
            }
        })
        .await;
        assert_eq!(answers[0], Answer::Ok(0));
        assert_eq!(answers[1], Answer::Failed(Failure::Error("refused")));
        assert_eq!(
            answers[2],
            Answer::Failed(Failure::Panicked(Panicked("boom 2".into())))
        );
        assert!(
            matches!(&answers[3], Answer::Failed(Failure::Panicked(said)) if said.0.contains("no three"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn answers_come_as_they_are_ready() {
        let start = Instant::now();
        let seconds = [3, 1, 9, 2];
        let mut running = FanOut::start(seconds, start + 5 * SECOND, |seconds| async move {
            sleep(seconds * SECOND).await;
            Ok::<_, Bad>(seconds)
        });
        let mut order = Vec::new();
        while let Some((target, answer)) = running.next().await {
            order.push((target, answer));
        }
        assert_eq!(
            order,
            [
                (1, Answer::Ok(1)),
                (3, Answer::Ok(2)),
                (0, Answer::Ok(3)),
                (2, Answer::Late)
            ]
        );
        assert_eq!(running.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ready_answer_counts_after_the_deadline() {
        let deadline = Instant::now();
        let mut running =
            FanOut::start([7], deadline, |target| async move { Ok::<_, Bad>(target) });
        sleep(SECOND).await;
        assert_eq!(running.next().await, Some((0, Answer::Ok(7))));
        assert_eq!(running.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_it_aborts_all() {
        struct Alive(Arc<AtomicUsize>);
        impl Drop for Alive {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let alive = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&alive);
        let all = fan_out(0..100, Instant::now() + 60 * SECOND, move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            let guard = Alive(Arc::clone(&counted));
            async move {
                std::future::pending::<()>().await;
                drop(guard);
                Ok::<_, Bad>(())
            }
        });
        assert!(tokio::time::timeout(SECOND, all).await.is_err());
        // Aborted tasks are dropped by the runtime in its next turns.
        sleep(SECOND).await;
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn no_targets_return_no_answers_at_once() {
        let start = Instant::now();
        let answers: Vec<Answer<(), Bad>> =
            fan_out(Vec::<u8>::new(), start + SECOND, |_| async { Ok(()) }).await;
        assert!(answers.is_empty());
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
