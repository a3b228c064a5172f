//! The one place that touches the crate `postgrest`: its builder makes the query, our own client sends it.
//!
//! The builder belongs to reqwest 0.11 and an old TLS stack, so its request is taken apart and built again for our client.
//! The old client never opens a socket. Our side adds what the builder cannot express: `limit` as a parameter (its `limit`
//! is a `Range` header), `Prefer` (each of its setters overwrites it) and the keys (it panics on a bad value).

use reqwest::{Client, Method, Request, header::HeaderValue};

/// Where `builder`s come from. Made once: it builds a TLS client of its own.
pub(super) fn api(rest_url: &str) -> postgrest::Postgrest {
    postgrest::Postgrest::new(rest_url)
}

/// The same method, URL, headers and body, as a request for our client.
#[expect(
    clippy::expect_used,
    reason = "only the constants of `query` under a checked base URL come here; a test takes each of them across"
)]
pub(super) fn request(client: &Client, builder: postgrest::Builder) -> Request {
    let old = builder
        .build()
        .build()
        .expect("`Supabase::new` has sent its base URL through the same check");
    let method = Method::from_bytes(old.method().as_str().as_bytes())
        .expect("a method of http 0.2 is a method of http 1");

    let mut request = client.request(method, old.url().clone());
    for (name, value) in old.headers() {
        let value = HeaderValue::from_bytes(value.as_bytes())
            .expect("a header value of http 0.2 is a header value of http 1");
        request = request.header(name.as_str(), value);
    }
    // In reqwest 0.11 a GET has an empty body; in ours it has none.
    match old.body().and_then(|body| body.as_bytes()) {
        Some(body) if !body.is_empty() => request = request.body(body.to_vec()),
        Some(_) | None => {}
    }
    request
        .build()
        .expect("each part was a part of a request already")
}
