//! Which deal, and what to do with it: every rule about deals, as pure functions.

use std::{collections::HashSet, time::Duration};

use amocrm::{Deal, Pipeline, Target};
use jiff::Timestamp;

use crate::{
    domain::{ContactId, DealId, StageId},
    inbox::Why,
};

/// What does not change from row to row.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub target: Target,
    /// A deal closed longer than this before the row was created is another purchase.
    pub reuse_closed: Duration,
}

/// What is known of one row when its deal is to be decided.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The contacts that are this person.
    pub contacts: &'a [ContactId],
    /// Every deal read for them; foreign and deleted ones may be among them.
    pub deals: &'a [Deal],
    /// The deal that we used for this person before.
    pub recorded: Option<DealId>,
    pub row_created_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Use { deal: DealId, why: Why },
    Create,
}

/// Picks the deal of a row that has none yet.
#[must_use]
pub fn decide(rules: &Rules, situation: &Situation<'_>) -> Decision {
    let contacts: HashSet<_> = situation.contacts.iter().collect();
    let ranked = situation
        .deals
        .iter()
        .filter(|deal| !deal.is_deleted && deal.pipeline == rules.target.pipeline)
        .filter(|deal| {
            deal.contacts
                .iter()
                .any(|contact| contacts.contains(contact))
        })
        .filter_map(|deal| Some((rank(rules, situation, deal)?, deal)));

    // The best rule first, then the latest change, then the highest id.
    let best =
        ranked.min_by_key(|(why, deal)| (*why, std::cmp::Reverse((deal.updated_at, deal.id))));
    match best {
        Some((why, deal)) => Decision::Use { deal: deal.id, why },
        None => Decision::Create,
    }
}

/// `None`: the deal was closed too long ago to be this purchase.
fn rank(rules: &Rules, situation: &Situation<'_>, deal: &Deal) -> Option<Why> {
    let why = if !deal.stage.is_closed() {
        Why::Open
    } else if !is_recent(rules, situation, deal) {
        return None;
    } else if deal.stage == rules.target.stage {
        Why::ClosedOnTarget
    } else if deal.stage == StageId::WON {
        Why::ClosedWon
    } else {
        Why::ClosedLost
    };
    Some(if situation.recorded == Some(deal.id) {
        Why::Recorded
    } else {
        why
    })
}

fn is_recent(rules: &Rules, situation: &Situation<'_>, deal: &Deal) -> bool {
    let closed_at = deal.closed_at.unwrap_or(deal.updated_at);
    match situation.row_created_at.checked_sub(rules.reuse_closed) {
        Ok(earliest) => closed_at >= earliest,
        Err(_) => true,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    Move,
    /// The deal is at or after the target, or on a stage whose place is unknown: it is never moved backwards.
    Leave,
}

/// What to do with the chosen deal.
#[must_use]
pub fn placement(target: Target, pipeline: &Pipeline, deal: &Deal) -> Placement {
    if deal.stage == target.stage || deal.stage == StageId::WON {
        return Placement::Leave;
    }
    if deal.stage == StageId::LOST {
        return Placement::Move;
    }
    match (
        sort_of(pipeline, deal.stage),
        sort_of(pipeline, target.stage),
    ) {
        (Some(stands), Some(target)) if stands < target => Placement::Move,
        _ => Placement::Leave,
    }
}

/// Whether the pipeline, as it was read last, lacks the deal's stage.
#[must_use]
pub fn stage_is_unknown(pipeline: &Pipeline, deal: &Deal) -> bool {
    deal.pipeline == pipeline.id && sort_of(pipeline, deal.stage).is_none()
}

fn sort_of(pipeline: &Pipeline, stage: StageId) -> Option<i64> {
    pipeline
        .stages
        .iter()
        .find(|known| known.id == stage)
        .map(|known| known.sort)
}

/// Why the configured target cannot be used. Russian: it is shown to the operator.
#[must_use]
pub fn target_problem(pipelines: &[Pipeline], target: Target) -> Option<String> {
    let Some(pipeline) = pipelines
        .iter()
        .find(|pipeline| pipeline.id == target.pipeline)
    else {
        return Some(format!("воронки {} нет в аккаунте amoCRM", target.pipeline));
    };
    if pipeline.is_archive {
        return Some(format!("воронка {} в архиве", target.pipeline));
    }
    let Some(stage) = pipeline
        .stages
        .iter()
        .find(|stage| stage.id == target.stage)
    else {
        return Some(format!(
            "этапа {} нет в воронке {}",
            target.stage, target.pipeline
        ));
    };
    if stage.is_unsorted {
        return Some(format!(
            "этап {} — «Неразобранное», сделку туда перенести нельзя",
            target.stage
        ));
    }
    (stage.id == StageId::LOST)
        .then(|| "этап 143 — «Закрыто и не реализовано»: это не покупка".to_owned())
}

#[cfg(test)]
mod tests;
