//! The questions that we ask, as the builder of the crate `postgrest` says them.

use jiff::Timestamp;
use postgrest::{Builder, Postgrest};

use crate::domain::{ContactId, DealId, RowId};

pub(super) const TABLE: &str = "tripwire_users";
pub(super) const DEAL: &str = "amocrm_deal_id";
pub(super) const CONTACT: &str = "amocrm_contact_id";
pub(super) const STATUS: &str = "status";

/// The regular expression for a blank text in Postgres, whose `[:space:]` lacks characters that `str::trim` removes.
const BLANK: &str =
    "^[[:space:]\u{85}\u{a0}\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}]*$";

/// These columns of any row.
pub(super) fn columns(api: &Postgrest, columns: &[&str]) -> Builder {
    api.from(TABLE).select(columns.join(","))
}

/// These columns of no row, since a row may be of any size. The condition is never true: null and not null.
pub(super) fn no_row(api: &Postgrest, columns: &[&str]) -> Builder {
    let one = columns.first().copied().unwrap_or("id");
    self::columns(api, columns)
        .is(one, "null")
        .not("is", one, "null")
}

pub(super) fn rows(api: &Postgrest, columns: &[&str], ids: &[RowId]) -> Builder {
    api.from(TABLE)
        .select(columns.join(","))
        // `in_` does not quote; a uuid needs none.
        .in_("id", ids.iter().map(ToString::to_string))
}

/// The id of any row other than these.
pub(super) fn rows_but(api: &Postgrest, not: &[RowId]) -> Builder {
    let builder = columns(api, &["id"]);
    if not.is_empty() {
        return builder;
    }
    let ids: Vec<String> = not.iter().map(ToString::to_string).collect();
    builder.not("in", "id", format!("({})", ids.join(",")))
}

/// Which rows by the time of their creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    pub since: Option<Timestamp>,
    /// Exclusive.
    pub until: Option<Timestamp>,
    /// Rows without a time too.
    pub with_undated: bool,
}

impl Period {
    /// Rows from that time on. A row without a time counts as new.
    #[must_use]
    pub fn since(since: Timestamp) -> Self {
        Self {
            since: Some(since),
            until: None,
            with_undated: true,
        }
    }

    /// Conditions that must all hold, each in the parentheses of an `or`.
    fn conditions(self) -> Vec<String> {
        let bounds = [("gte", self.since), ("lt", self.until)];
        let bounds = bounds
            .into_iter()
            .filter_map(|(operator, at)| Some(format!("created_at.{operator}.{}", at?)));
        if self.with_undated {
            bounds
                .map(|bound| format!("{bound},created_at.is.null"))
                .collect()
        } else {
            bounds
                .chain(["created_at.not.is.null".to_owned()])
                .collect()
        }
    }
}

/// Which unsynced rows. Blocked and inactive ones are left out only if the table has the column `status`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unsynced {
    pub(super) period: Period,
    pub(super) by_status: bool,
}

impl Unsynced {
    /// A page in id order.
    pub(super) fn page(self, api: &Postgrest, after: Option<RowId>) -> Builder {
        let unsynced = api.from(TABLE).select("id").is(DEAL, "null");
        self.page_of(unsynced, after)
    }

    /// A page in id order of the rows whose deal id is a blank text.
    pub(super) fn page_of_blank(self, api: &Postgrest, after: Option<RowId>) -> Builder {
        let blank = api
            .from(TABLE)
            .select("id")
            .or(format!("{DEAL}.match.\"{BLANK}\""));
        self.page_of(blank, after)
    }

    /// The latest ones by the time of their creation.
    pub(super) fn latest(self, api: &Postgrest) -> Builder {
        let unsynced = api.from(TABLE).select("id").is(DEAL, "null");
        self.filtered(unsynced).order("created_at.desc,id.desc")
    }

    fn page_of(self, rows: Builder, after: Option<RowId>) -> Builder {
        let builder = self.filtered(rows).order("id.asc");
        match after {
            Some(id) => builder.gt("id", id.to_string()),
            None => builder,
        }
    }

    /// How many: the total comes in `Content-Range`, with one id at most as its body.
    pub(super) fn count(self, api: &Postgrest) -> Builder {
        let unsynced = api.from(TABLE).select("id").is(DEAL, "null");
        self.filtered(unsynced).exact_count()
    }

    /// All of several `or` parameters must hold.
    fn filtered(self, rows: Builder) -> Builder {
        let conditions = self.period.conditions().into_iter();
        let builder = conditions.fold(rows, Builder::or);
        if self.by_status {
            builder.or("status.is.null,status.not.in.(blocked,inactive)")
        } else {
            builder
        }
    }
}

/// Writes the deal's id over NULL, or over exactly this text.
pub(super) fn write_back(
    api: &Postgrest,
    id: RowId,
    over: Option<&str>,
    deal: DealId,
    contact: Option<ContactId>,
) -> Builder {
    let mut change = serde_json::Map::new();
    change.insert(DEAL.to_owned(), deal.to_string().into());
    if let Some(contact) = contact {
        change.insert(CONTACT.to_owned(), contact.to_string().into());
    }
    let builder = api.from(TABLE).eq("id", id.to_string());
    let builder = match over {
        None => builder.is(DEAL, "null"),
        Some(text) => builder.eq(DEAL, text),
    };
    builder
        .select(["id", DEAL].join(","))
        .update(serde_json::Value::Object(change).to_string())
}
