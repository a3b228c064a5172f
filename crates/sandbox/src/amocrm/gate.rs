//! The gate before the account: ban, rate limit, length, token.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    super::server::{ELSEWHERE, Reply, Request},
    AmoQuirks, Throttled,
    answer::problem,
};

#[derive(Debug)]
pub(super) struct Gate {
    /// As they are set; the account looks at a copy.
    pub(super) quirks: AmoQuirks,
    pub(super) token: String,
    /// Of other integrations of the account.
    pub(super) more_tokens: Vec<String>,
    /// When the requests of the last second came.
    window: VecDeque<Instant>,
    pub(super) violations: u32,
    pub(super) is_banned: bool,
    /// What a client did here that the documents forbid.
    pub(super) protocol_errors: Vec<String>,
}

impl Gate {
    pub(super) fn new(quirks: AmoQuirks) -> Self {
        Self {
            quirks,
            token: "sandbox-token".to_owned(),
            more_tokens: Vec::new(),
            window: VecDeque::new(),
            violations: 0,
            is_banned: false,
            protocol_errors: Vec::new(),
        }
    }

    fn knows(&self, token: &str) -> bool {
        token == self.token || self.more_tokens.iter().any(|it| it == token)
    }

    fn protocol_error(&mut self, text: impl Into<String>) {
        self.protocol_errors.push(text.into());
    }

    pub(super) fn refuse(&mut self, request: &Request, at: Instant) -> Option<Reply> {
        let quirks = self.quirks;
        if request.path == ELSEWHERE {
            if request.header("authorization").is_some() {
                self.protocol_error("a redirect was followed with the token");
            }
            return Some(Reply::html(404));
        }
        if self.is_banned {
            return Some(Reply::html(403));
        }
        if let Some(limit) = quirks.rate_limit
            && self.counts_too_many(at, limit)
        {
            self.is_banned = quirks.ban_after.is_some_and(|most| self.violations >= most);
            return Some(too_many(quirks.throttled));
        }
        if request.target_length > quirks.longest_target {
            let length = request.target_length;
            self.protocol_error(format!(
                "{}: {length} bytes of path and query",
                request.path
            ));
            return Some(Reply::html(414));
        }
        match request.header("authorization") {
            None => self.protocol_error(format!("{}: no Authorization", request.path)),
            Some(value)
                if value
                    .strip_prefix("Bearer ")
                    .is_some_and(|it| self.knows(it)) =>
            {
                if !request.body.is_empty()
                    && !request
                        .header("content-type")
                        .is_some_and(|it| it.starts_with("application/json"))
                {
                    self.protocol_error(format!(
                        "{}: the body is not declared as JSON",
                        request.path
                    ));
                }
                return None;
            }
            Some(_) => {}
        }
        Some(problem(
            401,
            "Unauthorized",
            "Неверное имя пользователя или пароль",
        ))
    }

    fn counts_too_many(&mut self, at: Instant, limit: u32) -> bool {
        let second_ago = at.checked_sub(Duration::from_secs(1));
        while self
            .window
            .front()
            .is_some_and(|before| second_ago.is_some_and(|ago| *before <= ago))
        {
            self.window.pop_front();
        }
        if self.window.len() >= limit as usize {
            self.violations += 1;
            return true;
        }
        self.window.push_back(at);
        false
    }
}

fn too_many(mode: Throttled) -> Reply {
    let json = |body: Value| Reply::new(429, "application/problem+json", body.to_string());
    let plain =
        json!({"title": "Too Many Requests", "status": 429, "detail": "Превышен лимит запросов"});
    match mode {
        Throttled::Html => Reply::html(429),
        Throttled::Json => json(plain),
        Throttled::Header(seconds) => Reply::html(429).with("retry-after", seconds.to_string()),
        Throttled::Body(seconds) => {
            let mut body = plain;
            body["retry_after"] = seconds.into();
            json(body)
        }
    }
}
