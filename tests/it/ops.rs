//! The graphs and alerts in `ops` ask for what a running service exposes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

use serde_json::{Value, json};
use tripwire_sync::{
    app::Settings,
    domain::{SharedClock, SystemClock, TokenEnd},
};
use yaml_rust2::{Yaml, YamlLoader};

use crate::support::{EMAIL, NowForTests, Wishes, World};

/// What Prometheus itself adds to every series.
const ADDED: [&str; 2] = ["instance", "job"];
/// Labels that have all their values from the start.
const CLOSED: [&str; 3] = ["state", "by", "kind"];

/// The label of a series with its values.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// What `/metrics` holds: each series by its name.
#[derive(Debug, Default)]
struct Exposed {
    series: BTreeMap<String, Labels>,
    /// The metrics that have a description.
    described: BTreeSet<String>,
}

impl Exposed {
    /// By a service that has synced a row.
    async fn by_a_service() -> Self {
        let mut world = World::prepare(Wishes {
            sweep_every: Some(std::time::Duration::from_mins(1)),
            ..Wishes::brisk()
        });
        let settings = Settings {
            tokens: vec![TokenEnd {
                name: "AMOCRM_ACCESS_TOKEN",
                expires_at: jiff::Timestamp::now_for_tests(),
            }],
            ..world.settings()
        };
        let clock: SharedClock = Arc::new(SystemClock);
        world.launch_at(settings, clock).await;
        world.contact(EMAIL);
        let row = world.insert(&json!({}));
        assert_eq!(world.deliver(row).await, 202);
        world.until_synced_once(row).await;
        let url = format!("http://{}/metrics", world.app().metrics_address);
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        Self::read(&text)
    }

    fn read(text: &str) -> Self {
        let mut exposed = Self::default();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let name = help.split(' ').next().unwrap_or_default();
                exposed.described.insert(name.to_owned());
            }
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            let (name, labels) = match line.split_once('{') {
                Some((name, rest)) => (name, rest.rsplit_once('}').unwrap().0),
                None => (line.split(' ').next().unwrap(), ""),
            };
            let series = exposed.series.entry(name.to_owned()).or_default();
            for label in labels.split("\",").filter(|it| !it.is_empty()) {
                let (label, value) = label.split_once("=\"").unwrap();
                let values = series.entry(label.to_owned()).or_default();
                values.insert(value.trim_end_matches('"').to_owned());
            }
        }
        exposed
    }

    /// What is wrong with an expression.
    fn faults(&self, expression: &str) -> Vec<String> {
        let asked = asked(expression);
        assert!(!asked.series.is_empty(), "{expression}");
        let mut faults = Vec::new();
        let mut known: BTreeSet<&str> = ADDED.into();
        for (name, matchers) in &asked.series {
            let Some(labels) = self.series.get(name) else {
                faults.push(format!("{name} is not exposed"));
                continue;
            };
            known.extend(labels.keys().map(String::as_str));
            for (label, values) in matchers {
                if ADDED.contains(&label.as_str()) {
                    continue;
                }
                let Some(have) = labels.get(label) else {
                    faults.push(format!("{name} has no label {label}"));
                    continue;
                };
                for value in values.split('|') {
                    if CLOSED.contains(&label.as_str()) && !have.contains(value) {
                        faults.push(format!("{name} has no {label} {value}"));
                    }
                }
            }
        }
        let grouped = asked
            .grouped
            .iter()
            .filter(|it| !known.contains(it.as_str()));
        faults.extend(grouped.map(|label| format!("no series has the label {label}")));
        faults
    }
}

/// What an expression of Prometheus asks for.
#[derive(Debug, Default)]
struct Asked {
    /// Each series with its matchers, by label.
    series: Vec<(String, Vec<(String, String)>)>,
    /// Labels in `by (…)` and the like.
    grouped: Vec<String>,
}

const BEFORE_LABELS: [&str; 4] = ["by", "without", "on", "ignoring"];
const WORDS: [&str; 5] = ["and", "or", "unless", "offset", "bool"];

fn asked(expression: &str) -> Asked {
    let mut asked = Asked::default();
    let tokens = tokens(expression);
    let mut rest = tokens.iter().map(String::as_str).peekable();
    while let Some(token) = rest.next() {
        if token == "[" {
            // A duration.
            for token in rest.by_ref() {
                if token == "]" {
                    break;
                }
            }
        } else if BEFORE_LABELS.contains(&token) {
            assert_eq!(rest.next(), Some("("), "{expression}");
            let labels = rest.by_ref().take_while(|it| *it != ")");
            let labels = labels.filter(|it| *it != ",").map(str::to_owned);
            asked.grouped.extend(labels);
        } else if is_name(token) && !WORDS.contains(&token) && !is_call(rest.peek().copied()) {
            let mut matchers = Vec::new();
            if rest.next_if_eq(&"{").is_some() {
                let inside: Vec<&str> = rest.by_ref().take_while(|it| *it != "}").collect();
                for matcher in inside.split(|it| *it == ",") {
                    let (label, value) = (matcher[0], matcher[matcher.len() - 1]);
                    let value = value.trim_matches('"');
                    matchers.push((label.to_owned(), value.to_owned()));
                }
            }
            asked.series.push((token.to_owned(), matchers));
        }
    }
    asked
}

/// By what follows a name: `max(a)`, `max by (b) (a)`.
fn is_call(next: Option<&str>) -> bool {
    next.is_some_and(|next| next == "(" || next == "by" || next == "without")
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// Names, numbers, quoted texts, and single signs.
fn tokens(expression: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_in = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':' || c == '.';
        let length = if first == '"' {
            rest[1..].find('"').unwrap() + 2
        } else if is_in(first) {
            rest.find(|c| !is_in(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token.to_owned());
        rest = after.trim_start();
    }
    tokens
}

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ops").join(name);
    fs::read_to_string(path).unwrap()
}

/// Each alert with its expression.
fn alerts() -> Vec<(String, String)> {
    let documents = YamlLoader::load_from_str(&read("alerts.yml")).unwrap();
    let groups = documents[0]["groups"].as_vec().unwrap();
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_vec().unwrap());
    let text = |yaml: &Yaml| yaml.as_str().unwrap().to_owned();
    rules
        .map(|rule| {
            let severity = rule["labels"]["severity"].as_str().unwrap();
            assert!(["critical", "warning"].contains(&severity), "{severity}");
            for annotation in ["summary", "action"] {
                assert!(
                    rule["annotations"][annotation].as_str().is_some(),
                    "{rule:?}"
                );
            }
            (text(&rule["alert"]), text(&rule["expr"]))
        })
        .collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&read("grafana-dashboard.json")).unwrap()
}

/// The expressions of all panels, each with the title of its panel.
fn graphs(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap();
    let mut graphs = Vec::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        for target in panel["targets"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            let expression = target["expr"].as_str().unwrap();
            graphs.push((title.to_owned(), expression.to_owned()));
        }
    }
    graphs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_graph_and_alert_asks_for_series_and_labels_that_a_service_exposes() {
    let exposed = Exposed::by_a_service().await;
    let all = alerts().into_iter().chain(graphs(&dashboard()));
    let mut wrong = Vec::new();
    let mut count = 0;
    for (title, expression) in all {
        count += 1;
        let faults = exposed.faults(&expression);
        wrong.extend(faults.into_iter().map(|fault| format!("{title}: {fault}")));
    }
    assert!(count > 30, "{count}");
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_series_that_a_service_exposes_is_described() {
    let exposed = Exposed::by_a_service().await;
    let parts = ["_bucket", "_sum", "_count"];
    let described = |name: &String| {
        let mut names = parts.iter().filter_map(|part| name.strip_suffix(part));
        exposed.described.contains(name) || names.any(|it| exposed.described.contains(it))
    };
    let undescribed: Vec<_> = exposed
        .series
        .keys()
        .filter(|name| !described(name))
        .collect();
    assert_eq!(undescribed, Vec::<&String>::new());
    assert!(exposed.series.contains_key("process_resident_memory_bytes"));
    let version = exposed.series["tripwire_build_info"]["version"].first();
    assert_eq!(version.map(String::as_str), Some(env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_dashboard_can_be_imported_anywhere() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!(variables[0]["name"], "datasource");
    assert_eq!(variables[0]["type"], "datasource");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|it| it["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "an id is there twice");
    // The data source is chosen at the import, and none is named.
    let text = dashboard.to_string();
    let any = r#""uid":"${datasource}""#;
    assert_eq!(
        text.matches("\"uid\":").count(),
        text.matches(any).count() + 1
    );
}

/// The reader of expressions would pass everything if it read nothing.
#[test]
fn an_expression_is_read_in_every_shape() {
    let exposed = Exposed::read(
        "# HELP a A\na{state=\"x\",route=\"y z\"} 1\nb_bucket{le=\"+Inf\"} 2\nb_count 2\n",
    );
    let table: [(&str, &[&str]); 9] = [
        ("a", &[]),
        ("max(a{state=\"x\"}) == 0", &[]),
        (
            "time() - max by (instance) (a) > 1.5 and on (instance) b_count == 1",
            &[],
        ),
        (
            "histogram_quantile(0.9, sum by (le) (rate(b_bucket{instance=~\"$instance\"}[$__rate_interval])))",
            &[],
        ),
        ("c > 1", &["c is not exposed"]),
        ("a{status=~\"4..\"}", &["a has no label status"]),
        ("a{state=~\"x|w\", route=\"q\"}", &["a has no state w"]),
        ("sum by (outcome) (a)", &["no series has the label outcome"]),
        ("a or absent(d)", &["d is not exposed"]),
    ];
    for (expression, faults) in table {
        assert_eq!(exposed.faults(expression), faults, "{expression}");
    }
}
