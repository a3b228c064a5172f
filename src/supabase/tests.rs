mod columns;
mod doctor;
mod errors;
mod lease;
mod reads;
mod request;
mod test_event;
mod write_back;

use std::{
    collections::VecDeque,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::StatusCode, web};

use super::*;
use crate::domain::TestClock;

const KEY: &str = "sb_secret_do-not-tell";
const LEGACY_KEY: &str = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmF0dXJl";
const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoidHJpcHdpcmVfc3luYyJ9.bWludGVk";
const ANN: &str = "aaaaaaaa-0000-4000-8000-00000000000a";
const BOB: &str = "bbbbbbbb-0000-4000-8000-00000000000b";

/// A scripted stand-in for PostgREST: it gives its answers in order and keeps what it was asked.
struct Scripted {
    url: Url,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    answers: VecDeque<Reply>,
    /// Once the script is at its end: a table without this column, and without rows.
    lacking: Option<&'static str>,
    seen: Vec<Seen>,
}

#[derive(Debug, Clone)]
struct Seen {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key == name);
        let value = values.next().map(|(_, value)| value.as_str());
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

impl Scripted {
    fn start(answers: impl IntoIterator<Item = Reply>) -> Self {
        let script = Arc::new(Mutex::new(Script {
            answers: answers.into_iter().collect(),
            ..Script::default()
        }));
        let shared = Arc::clone(&script);
        let server = HttpServer::new(move || {
            let shared = Arc::clone(&shared);
            App::new().default_service(web::to(move |request: HttpRequest, body: web::Bytes| {
                let reply = Self::next(&shared, &request, &body);
                async move {
                    let mut response =
                        HttpResponse::build(StatusCode::from_u16(reply.status).unwrap());
                    for header in reply.headers {
                        response.insert_header(header);
                    }
                    response.body(reply.body)
                }
            }))
        })
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .unwrap();
        let url = format!("http://{}/", server.addrs()[0]).parse().unwrap();
        actix_web::rt::spawn(server.run());
        Self { url, script }
    }

    fn next(script: &Mutex<Script>, request: &HttpRequest, body: &[u8]) -> Reply {
        let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
        let query = url::form_urlencoded::parse(request.query_string().as_bytes());
        let headers = request.headers().iter();
        script.seen.push(Seen {
            method: request.method().to_string(),
            path: request.path().to_owned(),
            query: query.into_owned().collect(),
            headers: headers
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect(),
            body: String::from_utf8(body.to_vec()).unwrap(),
        });
        let answer = script.answers.pop_front();
        answer.unwrap_or_else(|| match script.lacking {
            Some(column) if request.query_string().contains(column) => refusal(400, "42703"),
            Some(_) => ok("[]"),
            None => reply(418, "nothing was scripted for this request"),
        })
    }

    /// Everything that was asked; the script has to be at its end.
    fn seen(&self) -> Vec<Seen> {
        let script = self.script.lock().unwrap();
        assert_eq!(script.answers.len(), 0, "answers that nobody asked for");
        script.seen.clone()
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
