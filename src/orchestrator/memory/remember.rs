//! `remember`: storing one memory by hand.

use super::handle::Memories;
use super::pools::{PoolNames, unknown_pool};
use crate::api::{Forwarding, Remember, RememberResult};
use crate::error::{ErrorKind, Problem};
use crate::model::{MemoryKind, NewMemory};
use crate::redact::redact;
use crate::text::on_screen;

/// The longest text, in bytes; the store takes no more.
const MAX_TEXT_BYTES: usize = 1 << 20;
const MAX_TAGS: usize = 20;
const MAX_TAG_BYTES: usize = 100;

impl Memories {
    /// Answers `remember`; `repo` is what the call names, as a canonical absolute path.
    ///
    /// # Errors
    ///
    /// A refusal of `text`, `tags` or `pool`, or that the store cannot be written.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses the answer but not a memory that was already handed to the store; the same call again
    /// finds it as known.
    pub async fn remember(
        &self,
        call: Remember,
        repo: Option<String>,
        names: &impl PoolNames,
    ) -> Result<RememberResult, Problem> {
        check_text(&call.text)?;
        check_tags(&call.tags)?;
        let pool = match call.pool {
            Some(name) if names.exists(name.as_str()) => name,
            Some(name) => return Err(unknown_pool("pool", &name, names)),
            None => names.all().into_iter().next().ok_or_else(|| {
                Problem::new(
                    ErrorKind::NotFound,
                    "there is no pool that the memory could belong to",
                )
                .with_hint("set_pool makes one")
            })?,
        };
        let kind = call.kind.unwrap_or(MemoryKind::Note);
        let mut memory = NewMemory::new(kind, redact(&on_screen(&call.text)), pool, "remember");
        memory.repo = repo;
        memory.tags = call.tags.iter().map(|tag| redact(tag)).collect();
        let forward_to = self.forward_to();
        let forwarding = match forward_to {
            Some(_) => Forwarding::Pending,
            None => Forwarding::Off,
        };
        let report = self
            .0
            .store
            .insert_memories(vec![memory], forward_to)
            .await?;
        self.stored();
        let id = report
            .ids
            .first()
            .expect("one memory was given, so one id comes back");
        Ok(RememberResult {
            id: id.to_string(),
            new: report.new == 1,
            forwarding,
        })
    }
}

fn check_text(text: &str) -> Result<(), Problem> {
    let refuse = |message: String| {
        let allowed = "1 byte to 1 MiB of text that is not blank";
        Err(Problem::argument("text", message, allowed))
    };
    if text.trim().is_empty() {
        return refuse("text is empty".to_owned());
    }
    if text.len() > MAX_TEXT_BYTES {
        return refuse(format!("text has {} bytes", text.len()));
    }
    Ok(())
}

fn check_tags(tags: &[String]) -> Result<(), Problem> {
    let allowed = || format!("at most {MAX_TAGS} tags of 1 to {MAX_TAG_BYTES} bytes, not blank");
    if tags.len() > MAX_TAGS {
        let message = format!("tags has {} entries", tags.len());
        return Err(Problem::argument("tags", message, allowed()));
    }
    match tags
        .iter()
        .find(|tag| tag.trim().is_empty() || tag.len() > MAX_TAG_BYTES)
    {
        None => Ok(()),
        Some(tag) => {
            let message = format!("a tag has {} bytes of text", tag.trim().len());
            Err(Problem::argument("tags", message, allowed()))
        }
    }
}
