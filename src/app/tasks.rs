//! Named tasks of the process. Each is expected to run until the process stops; the first that
//! fails, panics or ends ends the process.

use std::any::Any;
use std::collections::HashMap;
use std::fmt::Display;

use tokio::task::{Id, JoinError, JoinSet};

/// A task that ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[error("the task \"{name}\" {problem}")]
pub struct TaskFailure {
    /// Name of the task.
    pub name: &'static str,
    problem: String,
}

/// A set of running tasks. Dropping it aborts them.
#[derive(Default)]
pub(super) struct Tasks {
    running: JoinSet<Result<(), String>>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// Spawns a task that may fail.
    pub(super) fn spawn_fallible<E: Display>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let task = async move { task.await.map_err(|error| error.to_string()) };
        self.names.insert(self.running.spawn(task).id(), name);
    }

    /// Spawns a task.
    pub(super) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_fallible(name, async move {
            task.await;
            Ok::<_, String>(())
        });
    }

    /// Waits until a task has ended, for whatever reason. Never resolves when there are none.
    pub(super) async fn next_failure(&mut self) -> TaskFailure {
        match self.running.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((id, result))) => {
                let problem = match result {
                    Ok(()) => "has ended".to_owned(),
                    Err(error) => format!("has failed: {error}"),
                };
                TaskFailure { name: self.name_of(id), problem }
            }
            Some(Err(error)) => TaskFailure { name: self.name_of(error.id()), problem: problem_of(error) },
        }
    }

    /// Waits for all tasks to end, and logs those that failed.
    pub(super) async fn join(mut self) {
        while !self.running.is_empty() {
            let result = self.running.join_next_with_id().await;
            let (id, problem) = match result {
                None | Some(Ok((_, Ok(())))) => continue,
                Some(Ok((id, Err(error)))) => (id, format!("has failed: {error}")),
                Some(Err(error)) => (error.id(), problem_of(error)),
            };
            let failure = TaskFailure { name: self.name_of(id), problem };
            tracing::error!("{failure} while the process was stopping");
        }
    }

    /// Aborts all tasks, and waits until they have ended.
    pub(super) async fn abort(mut self) {
        self.running.shutdown().await;
    }

    fn name_of(&mut self, id: Id) -> &'static str {
        self.names.remove(&id).unwrap_or("unknown")
    }
}

fn problem_of(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => format!("has panicked: {}", panic_message(&*panic)),
        Err(_) => "was aborted".to_owned(),
    }
}

/// The message of a panic.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn the_first_task_that_ends_is_named_with_its_reason() {
        type Spawn = fn(&mut Tasks);
        let cases: [(Spawn, &str); 3] = [
            (|tasks| tasks.spawn("polls", async { panic!("no clock {}", 1) }), "has panicked: no clock 1"),
            (|tasks| tasks.spawn("polls", async {}), "has ended"),
            (
                |tasks| tasks.spawn_fallible("polls", async { Err(std::fmt::Error) }),
                &format!("has failed: {}", std::fmt::Error),
            ),
        ];
        for (spawn, problem) in cases {
            let mut tasks = Tasks::default();
            tasks.spawn("another", pending());
            spawn(&mut tasks);
            let failure = tasks.next_failure().await;
            assert_eq!(failure.name, "polls");
            assert_eq!(failure.to_string(), format!("the task \"polls\" {problem}"));
            tasks.abort().await;
        }
    }
}
