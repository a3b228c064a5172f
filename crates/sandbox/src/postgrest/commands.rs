//! GET, HEAD, PATCH and the one function.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    super::server::{Reply, Request, Route},
    LeaseFunction, Policies, State, error,
    filter::{Filter, FilterError},
    table::{COLUMNS, Comparable, Row, compare, row_json, timestamptz, type_of},
};

pub(super) const JSON: &str = "application/json; charset=utf-8";

/// `Prefer`, read.
#[derive(Debug, Default)]
struct Preferences {
    wants_rows: bool,
    wants_count: bool,
    is_strict: bool,
    max_affected: Option<usize>,
    applied: Vec<String>,
    unknown: Vec<String>,
}

impl Preferences {
    fn read(request: &Request, knows_max_affected: bool) -> Self {
        let mut read = Self::default();
        let header = request.header("prefer").unwrap_or_default();
        for preference in header.split(',').map(str::trim).filter(|it| !it.is_empty()) {
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            match (name, value) {
                ("return", "representation") => read.wants_rows = true,
                ("count", "exact") => read.wants_count = true,
                ("handling", "strict") => read.is_strict = true,
                ("return", "minimal") | ("handling", "lenient") => {}
                ("max-affected", most) if knows_max_affected => {
                    read.max_affected = most.parse().ok();
                }
                _ => {
                    read.unknown.push(preference.to_owned());
                    continue;
                }
            }
            read.applied.push(preference.to_owned());
        }
        read
    }

    fn refusal(&self) -> Option<Reply> {
        if !self.is_strict || self.unknown.is_empty() {
            return None;
        }
        let details = format!("Invalid preferences: {}", self.unknown.join(", "));
        let message = "Invalid preferences given with handling=strict";
        Some(error(400, "PGRST122", message, Some(&details)))
    }
}

/// Rows from `offset`, at most `limit`.
#[derive(Debug, Clone, Copy)]
struct Range {
    offset: usize,
    limit: usize,
}

impl State {
    pub(super) fn act(&mut self, route: Route, request: &Request, now: Timestamp) -> Reply {
        if self.quirks.is_denied {
            return denied();
        }
        match route.name {
            "rows.read" | "rows.count" => self.read(request).unwrap_or_else(|refusal| refusal),
            "rows.update" => self.update(request, now).unwrap_or_else(|refusal| refusal),
            "rpc.lease" => self.take_lease(request, now),
            "rpc.pause" => self.pause(request, now),
            "rpc.doctor" => self.tell(request, now),
            "rpc.test_event" => self.send_test_event(request),
            "rpc.test_result" => self.test_result(),
            _ => self.unknown(request),
        }
    }

    fn unknown(&mut self, request: &Request) -> Reply {
        let Request { method, path, .. } = request;
        if let Some(function) = path.strip_prefix("/rest/v1/rpc/") {
            return function_missing(function);
        }
        self.protocol_error(format!("{method} {path} is nothing that we use"));
        match path.strip_prefix("/rest/v1/") {
            Some("tripwire_users") => error(405, "PGRST117", "Unsupported HTTP method", None),
            Some(table) => {
                let message =
                    format!("Could not find the table 'public.{table}' in the schema cache");
                error(404, "PGRST205", &message, None)
            }
            None => error(
                404,
                "PGRST125",
                "Invalid path specified in request URL",
                None,
            ),
        }
    }

    fn protocol_error(&mut self, text: String) {
        self.protocol_errors.push(text);
    }

    fn read(&mut self, request: &Request) -> Result<Reply, Reply> {
        let preferences = Preferences::read(request, self.quirks.knows_max_affected);
        if let Some(refusal) = preferences.refusal() {
            return Err(refusal);
        }
        let columns = self.selected(request)?;
        let filters = self.filters(request)?;
        let order = self.order(request)?;
        let range = self.range(request)?;

        let mut found: Vec<&Row> = match self.quirks.policies {
            Policies::HideAll => Vec::new(),
            Policies::Open | Policies::NoUpdate => self
                .matching(&filters)
                .into_iter()
                .map(|(_, row)| row)
                .collect(),
        };
        found.sort_by(|left, right| {
            order
                .iter()
                .map(|(column, is_descending)| {
                    let ascending = compare(column, left, right);
                    if *is_descending {
                        ascending.reverse()
                    } else {
                        ascending
                    }
                })
                .find(|ordering| ordering.is_ne())
                .unwrap_or(std::cmp::Ordering::Equal)
        });

        let total = found.len();
        let found: Vec<&Row> = found
            .into_iter()
            .skip(range.offset)
            .take(range.limit.min(self.quirks.max_rows))
            .collect();
        let raises = |row: &&Row| {
            let mut raising = self.quirks.raising_rows.iter();
            raising.any(|raising| row["id"] == raising.to_string())
        };
        if found.iter().any(raises) {
            return Err(error(400, "P0001", "not this one", None));
        }
        let rows: Vec<String> = found
            .into_iter()
            .map(|row| row_json(row, &columns))
            .collect();
        let count = preferences.wants_count.then_some(total);
        if let Some(total) = count.filter(|total| range.offset > *total) {
            let offset = range.offset;
            let details =
                format!("An offset of {offset} was requested, but there are only {total} rows.");
            let reply = error(
                416,
                "PGRST103",
                "Requested range not satisfiable",
                Some(&details),
            );
            return Err(reply.with("content-range", format!("*/{total}")));
        }
        let is_part = count.is_some_and(|total| rows.len() < total);
        let status = if is_part { 206 } else { 200 };
        let content_range = content_range(range.offset, rows.len(), count);
        let body = if request.method == "HEAD" {
            String::new()
        } else {
            format!("[{}]", rows.join(",\n "))
        };
        Ok(Reply::new(status, JSON, body).with("content-range", content_range))
    }

    /// The matching rows in the order of ids. With ids in a filter, the time does not depend on the size of the table.
    fn matching(&self, filters: &[Filter]) -> Vec<(Uuid, &Row)> {
        let rows = &self.table.rows;
        let named = filters.iter().find_map(Filter::ids);
        let candidates: Vec<(Uuid, &Row)> = match named {
            Some(ids) => ids
                .into_iter()
                .filter_map(|id| Some((id, rows.get(&id)?)))
                .collect(),
            None => rows.iter().map(|(id, row)| (*id, row)).collect(),
        };
        candidates
            .into_iter()
            .filter(|(_, row)| filters.iter().all(|filter| filter.matches(row)))
            .collect()
    }

    fn update(&mut self, request: &Request, now: Timestamp) -> Result<Reply, Reply> {
        let preferences = Preferences::read(request, self.quirks.knows_max_affected);
        if let Some(refusal) = preferences.refusal() {
            return Err(refusal);
        }
        let Some(Value::Object(changes)) = request.json() else {
            self.protocol_error("PATCH: the body is not a JSON object".to_owned());
            return Err(error(400, "PGRST102", "Empty or invalid json", None));
        };
        let mut stored = Row::new();
        for (column, value) in &changes {
            let Some(column_type) = type_of(column).filter(|_| self.has(column)) else {
                let message = format!(
                    "Could not find the '{column}' column of 'tripwire_users' in the schema cache"
                );
                return Err(error(400, "PGRST204", &message, None));
            };
            if self.quirks.behind.unwritable_columns.contains(column) {
                return Err(denied());
            }
            let text = match value {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            let value = match text
                .as_deref()
                .map(|text| Comparable::parse(column_type, text))
            {
                None => Value::Null,
                Some(Err(bad)) => return Err(error(400, bad.0, &bad.1, None)),
                // A text column takes a number as its digits.
                Some(Ok(Comparable::Text(text))) => text.into(),
                Some(Ok(_)) => value.clone(),
            };
            stored.insert(column.clone(), value);
        }
        let columns = self.selected(request)?;
        let filters = self.filters(request)?;
        if filters.is_empty() {
            self.protocol_error("PATCH: without a filter it would change every row".to_owned());
            return Err(error(400, "21000", "UPDATE requires a WHERE clause", None));
        }
        for name in ["order", "limit", "offset"] {
            if request.param(name).is_some() {
                self.protocol_error(format!("PATCH: {name} restricts nothing"));
            }
        }

        let is_writable = self.quirks.policies == Policies::Open;
        let matching: Vec<Uuid> = self
            .matching(&filters)
            .into_iter()
            .map(|(id, _)| id)
            .filter(|_| is_writable)
            .filter(|id| {
                let mut kept = self.quirks.unchangeable_rows.iter();
                !kept.any(|row| row.to_string() == id.to_string())
            })
            .collect();
        if preferences.is_strict
            && preferences
                .max_affected
                .is_some_and(|most| matching.len() > most)
        {
            let details = format!("The query affects {} rows", matching.len());
            let message = "Query result exceeds max-affected preference constraint";
            return Err(error(400, "PGRST124", message, Some(&details)));
        }
        let mut rows = Vec::new();
        for id in &matching {
            if let Some(row) = self.table.rows.get_mut(id) {
                row.extend(stored.clone());
                row.insert("updated_at".to_owned(), timestamptz(now).into());
                rows.push(row_json(row, &columns));
            }
        }
        let count = preferences.wants_count.then_some(rows.len());
        let content_range = content_range(0, rows.len(), count);
        let reply = if preferences.wants_rows {
            Reply::new(200, JSON, format!("[{}]", rows.join(",\n ")))
        } else {
            Reply::empty(204)
        };
        Ok(reply
            .with("content-range", content_range)
            .with("preference-applied", preferences.applied.join(", ")))
    }

    /// The migration's function. `true`: granted or renewed. The lease ends after `seconds`; 0 gives back the caller's own.
    fn take_lease(&mut self, request: &Request, now: Timestamp) -> Reply {
        match self.quirks.lease {
            LeaseFunction::Missing => return function_missing("tripwire_sync_lease"),
            LeaseFunction::Denied => return denied(),
            LeaseFunction::Present => {}
        }
        let body = request.json().unwrap_or_default();
        let (Some(holder), Some(seconds)) = (body["holder"].as_str(), body["seconds"].as_i64())
        else {
            self.protocol_error("rpc/tripwire_sync_lease: wants holder and seconds".to_owned());
            return function_missing("tripwire_sync_lease");
        };
        let held_by = self
            .lease
            .as_ref()
            .map(|(held_by, until)| (held_by.as_str(), *until));
        let is_its_own = held_by.is_some_and(|(held_by, _)| held_by == holder);
        let is_free = held_by.is_none_or(|(_, until)| until <= now);
        let is_granted = is_its_own || (is_free && seconds > 0);
        if is_granted {
            let until = now.saturating_add(jiff::SignedDuration::from_secs(seconds));
            self.lease = Some((holder.to_owned(), until.unwrap_or(Timestamp::MAX)));
        }
        Reply::new(200, JSON, json!(is_granted).to_string())
    }

    /// The migration's function: `true` pauses, `false` resumes, `null` only asks.
    fn pause(&mut self, request: &Request, now: Timestamp) -> Reply {
        match self.quirks.lease {
            LeaseFunction::Present if self.quirks.has_pause => {}
            LeaseFunction::Denied => return denied(),
            LeaseFunction::Present | LeaseFunction::Missing => {
                return function_missing("tripwire_sync_pause");
            }
        }
        let body = request.json().unwrap_or_default();
        if let Some(is_paused) = body["paused"].as_bool() {
            let microsecond = jiff::SignedDuration::from_micros(1);
            let next = self.pause.map(|(_, last)| last.saturating_add(microsecond));
            let next = next.and_then(Result::ok).unwrap_or(now);
            self.pause = Some((is_paused, next.max(now)));
        }
        let last = self.pause.map(|(is_paused, changed_at)| {
            json!({
                "is_paused": is_paused,
                "changed_at": changed_at.to_string(),
                "seconds_ago": now.duration_since(changed_at).as_secs_f64(),
            })
        });
        let lease = self.lease.as_ref().filter(|(_, until)| *until > now);
        let held_by = lease.map(|(holder, _)| holder);
        Reply::new(
            200,
            JSON,
            json!({ "last": last, "held_by": held_by }).to_string(),
        )
    }

    pub(super) fn has(&self, column: &str) -> bool {
        type_of(column).is_some() && !self.quirks.absent_columns.iter().any(|it| it == column)
    }

    fn check_column(&self, column: &str) -> Result<(), Reply> {
        if !self.has(column) {
            let message = format!("column tripwire_users.{column} does not exist");
            return Err(error(400, "42703", &message, None));
        }
        if self.quirks.unreadable_columns.iter().any(|it| it == column) {
            return Err(denied());
        }
        Ok(())
    }

    fn selected(&mut self, request: &Request) -> Result<Vec<String>, Reply> {
        let select = request.param("select").unwrap_or("*");
        let columns: Vec<String> = if select == "*" {
            if request.method != "HEAD" {
                self.protocol_error(format!("{}: columns are not named", request.method));
            }
            let all = COLUMNS.iter().map(|(name, _)| (*name).to_owned());
            all.filter(|name| self.has(name)).collect()
        } else {
            select.split(',').map(str::to_owned).collect()
        };
        for column in &columns {
            self.check_column(column)?;
        }
        Ok(columns)
    }

    fn filters(&mut self, request: &Request) -> Result<Vec<Filter>, Reply> {
        let mut filters = Vec::new();
        for (key, value) in &request.query {
            if ["select", "order", "limit", "offset"].contains(&key.as_str()) {
                continue;
            }
            let filter = Filter::parse(key, value).map_err(|problem| match problem {
                FilterError::Unparsable(text) => self.not_understood(&format!("filter ({text})")),
                FilterError::UnknownColumn(column) => {
                    let message = format!("column tripwire_users.{column} does not exist");
                    error(400, "42703", &message, None)
                }
                FilterError::BadValue(bad) => error(400, bad.0, &bad.1, None),
            })?;
            for column in filter.columns() {
                self.check_column(column)?;
            }
            filters.push(filter);
        }
        Ok(filters)
    }

    fn not_understood(&mut self, what: &str) -> Reply {
        self.protocol_error(format!("{what} is nothing that we use"));
        let message = format!("\"failed to parse {what}\" (line 1, column 1)");
        error(400, "PGRST100", &message, None)
    }

    fn order(&mut self, request: &Request) -> Result<Vec<(String, bool)>, Reply> {
        let mut order = Vec::new();
        for part in request
            .param("order")
            .into_iter()
            .flat_map(|order| order.split(','))
        {
            let (column, direction) = part.split_once('.').unwrap_or((part, "asc"));
            let is_descending = match direction {
                "asc" | "asc.nullslast" => false,
                "desc" => true,
                _ => return Err(self.not_understood(&format!("order ({part})"))),
            };
            self.check_column(column)?;
            order.push((column.to_owned(), is_descending));
        }
        Ok(order)
    }

    /// The header wins over the query.
    fn range(&mut self, request: &Request) -> Result<Range, Reply> {
        let mut range = Range {
            offset: 0,
            limit: usize::MAX,
        };
        for (name, field) in [("limit", &mut range.limit), ("offset", &mut range.offset)] {
            if let Some(text) = request.param(name) {
                *field = text
                    .parse()
                    .map_err(|_| self.not_understood(&format!("{name} ({text})")))?;
            }
        }
        if let Some((first, last)) = request.header("range").and_then(|it| it.split_once('-'))
            && let Ok(first) = first.trim_start_matches("items=").parse()
        {
            range.offset = first;
            if let Ok(last) = last.parse::<usize>() {
                range.limit = (last + 1).saturating_sub(first);
            }
        }
        Ok(range)
    }
}

fn content_range(offset: usize, rows: usize, count: Option<usize>) -> String {
    let count = count.map_or("*".to_owned(), |count| count.to_string());
    match rows {
        0 => format!("*/{count}"),
        rows => format!("{offset}-{}/{count}", offset + rows - 1),
    }
}

fn denied() -> Reply {
    error(
        403,
        "42501",
        "permission denied for table tripwire_users",
        None,
    )
}

pub(super) fn function_missing(function: &str) -> Reply {
    let message = format!("Could not find the function public.{function} in the schema cache");
    error(404, "PGRST202", &message, None)
}
