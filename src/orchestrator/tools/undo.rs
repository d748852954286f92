//! `apply_changes` with `undo`: takes earlier applies back.

use super::applied::row;
use crate::api::{Applied, ApplyChanges};
use crate::error::Problem;
use crate::model::ItemRecord;
use crate::orchestrator::Orchestrator;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Orchestrator {
    /// Undoes the applies that `args.undo` names, the latest first. All tokens are checked before the first is used.
    ///
    /// # Errors
    ///
    /// Other arguments beside `undo`, or a token that is not of this workflow. An undo that fails is in its rows.
    pub(super) async fn undo_applies(
        &self,
        args: &ApplyChanges,
        items: &[Arc<ItemRecord>],
    ) -> Result<Vec<Applied>, Problem> {
        refuse_others(args)?;
        let id = args.workflow_id;
        let repos = &self.0.repos;
        let tokens: BTreeSet<&String> = args.undo.iter().collect();
        let applies: Result<Vec<_>, _> = tokens
            .into_iter()
            // Each undo restores what was there before its apply; tokens sort by time.
            .rev()
            .map(|token| repos.undo_record(token, id))
            .collect();
        let mut rows = Vec::new();
        for apply in applies? {
            let token = apply.token();
            let error = match repos.undo(&token).await {
                // Another call has undone it meanwhile, since its record is gone.
                Err(_) if repos.undo_record(&token, id).is_err() => None,
                undone => undone.err().map(Problem::from),
            };
            let records = apply
                .items
                .iter()
                .filter_map(|item| items.get(*item as usize));
            rows.extend(records.map(|record| Applied {
                applied: error.is_some(),
                undone: error.is_none(),
                undo: error.is_some().then(|| token.clone()),
                error: error.clone(),
                ..row(record)
            }));
        }
        self.note_applied(id).await;
        rows.sort_by_key(|row| row.item);
        Ok(rows)
    }
}

/// Refuses arguments that have no effect beside `undo`.
fn refuse_others(args: &ApplyChanges) -> Result<(), Problem> {
    let others = [
        ("items", !args.items.is_empty()),
        ("how", args.how.is_some()),
        ("check_only", args.check_only),
        ("allow_unverified", args.allow_unverified),
        ("allow_risks", !args.allow_risks.is_empty()),
        ("cursor", args.cursor.is_some()),
    ];
    match others.into_iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((field, _)) => Err(Problem::argument(
            field,
            format!("{field} has no effect beside undo"),
            "undo with workflow_id alone",
        )
        .with_hint("an undo reverts all that was applied in the same step; call it first, then apply the items to keep")),
    }
}
