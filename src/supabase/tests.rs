mod columns;
mod doctor;
mod errors;
mod lease;
mod pause;
mod reads;
mod request;
mod test_event;
mod write_back;

use std::error::Error;

use wiremock::{
    Mock, MockServer, Request, Respond, ResponseTemplate, http::HeaderMap, matchers::any,
};

use super::*;
use crate::domain::TestClock;

const KEY: &str = "sb_secret_do-not-tell";
const LEGACY_KEY: &str = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmF0dXJl";
const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoidHJpcHdpcmVfc3luYyJ9.bWludGVk";
const ANN: &str = "aaaaaaaa-0000-4000-8000-00000000000a";
const BOB: &str = "bbbbbbbb-0000-4000-8000-00000000000b";

/// A scripted stand-in for PostgREST: it gives its answers in order and keeps what it was asked. When it is dropped, all of
/// them have to be given.
struct Scripted {
    url: Url,
    server: MockServer,
}

#[derive(Debug, Clone)]
struct Seen {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: String,
}

impl From<Request> for Seen {
    fn from(request: Request) -> Self {
        Self {
            method: request.method.to_string(),
            path: request.url.path().to_owned(),
            query: request.url.query_pairs().into_owned().collect(),
            headers: request.headers,
            body: String::from_utf8(request.body).unwrap(),
        }
    }
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().unwrap());
        assert!(values.next().is_none(), "{name} is sent once");
        value
    }

    fn query(&self) -> Vec<(&str, &str)> {
        let pairs = self.query.iter();
        pairs.map(|(key, value)| (&**key, &**value)).collect()
    }

    fn select(&self) -> &str {
        self.query()
            .iter()
            .find(|(key, _)| *key == "select")
            .unwrap()
            .1
    }
}

#[derive(Debug, Clone)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
}

fn ok(body: impl Into<String>) -> Reply {
    reply(200, body)
}

fn reply(status: u16, body: impl Into<String>) -> Reply {
    Reply {
        status,
        headers: Vec::new(),
        body: body.into(),
    }
}

fn refusal(status: u16, code: &str) -> Reply {
    let message = "column tripwire_users.x of ann@example.org";
    reply(
        status,
        format!(r#"{{"code":"{code}","details":null,"hint":null,"message":"{message}"}}"#),
    )
}

impl Reply {
    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl Respond for Reply {
    fn respond(&self, _: &Request) -> ResponseTemplate {
        ResponseTemplate::new(self.status)
            .set_body_string(&*self.body)
            .append_headers(self.headers.clone())
    }
}

impl Scripted {
    async fn start(answers: impl IntoIterator<Item = Reply>) -> Self {
        let server = MockServer::start().await;
        for answer in answers {
            let mock = Mock::given(any()).respond_with(answer);
            mock.up_to_n_times(1).expect(1).mount(&server).await;
        }
        // wiremock itself would say 404, which means something.
        let unforeseen = reply(418, "nothing was scripted for this request");
        let mock = Mock::given(any()).respond_with(unforeseen);
        mock.with_priority(u8::MAX).mount(&server).await;
        let url = server.uri().parse().unwrap();
        Self { url, server }
    }

    /// Everything that was asked.
    async fn seen(&self) -> Vec<Seen> {
        let seen = self.server.received_requests().await.unwrap();
        seen.into_iter().map(Seen::from).collect()
    }

    fn client(&self) -> Supabase {
        self.client_with(|_| {})
    }

    fn client_with(&self, change: impl FnOnce(&mut Settings)) -> Supabase {
        let mut settings = settings(self.url.clone());
        change(&mut settings);
        Supabase::new(settings, clock()).unwrap()
    }
}

fn settings(project_url: Url) -> Settings {
    Settings {
        project_url,
        key: KEY.into(),
        jwt: None,
        note_columns: Vec::new(),
        largest_answer: LARGEST_ANSWER,
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        extra_roots: Vec::new(),
    }
}

fn clock() -> SharedClock {
    TestClock::at(time("2026-11-22T12:00:00Z"))
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn id(text: &str) -> RowId {
    text.parse().unwrap()
}

/// Neither the error nor any of its causes contains the secret.
fn assert_silent(error: &dyn Error, secret: &str) {
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        let text = format!("{error} {error:?}");
        assert!(!text.contains(secret), "{text}");
        next = error.source();
    }
}

/// The select of a read where every column is there.
const ALL: &str = "id,email,full_name,created_at,amocrm_deal_id,phone,price,status";
