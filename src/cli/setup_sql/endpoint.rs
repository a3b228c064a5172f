//! The address that the database sends events to.

use std::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Where the service takes events.
pub(super) const PATH: &str = "/webhooks/supabase";
/// The name of the host machine inside a container, as in Supabase's local stack.
const MACHINE_OF_THE_CONTAINER: &str = "host.docker.internal";

/// An address whose text can stand in a literal as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    url: Url,
    remark: Option<Remark>,
}

/// A remark about an address that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remark {
    PathAdded,
    OtherPath,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum EndpointError {
    #[error("this is not the address of a service: https://your-service.example{PATH}")]
    NotAnAddress,
    #[error("the address has a space or a line break in it")]
    Whitespace,
    #[error(
        "http:// would carry events in the clear, and a redirect to https:// loses them: give the https:// address"
    )]
    ClearText,
    #[error("a user name or password does not belong into the address: events are signed")]
    Credentials,
    #[error("the address has a ? or # part")]
    Query,
    #[error("the address has a character that it does not need")]
    Character,
    #[error("this is Supabase's own address; wanted is that of the service")]
    Supabase,
}

impl EndpointError {
    pub(super) fn in_russian(self) -> String {
        match self {
            Self::NotAnAddress => "это не адрес сервиса: https://your-service.example/webhooks/supabase",
            Self::Whitespace => "в адресе пробел или перевод строки",
            Self::ClearText => "по http:// события шли бы без шифрования, а перенаправление на https:// их теряет: укажите адрес https://",
            Self::Credentials => "уберите из адреса имя и пароль: события и так подписаны",
            Self::Query => "в адресе есть часть после ? или #",
            Self::Character => "в адресе лишний символ",
            Self::Supabase => "это адрес самого Supabase, а нужен адрес сервиса",
        }
        .to_owned()
    }
}

impl Endpoint {
    pub(super) fn parse(text: &str) -> Result<Self, EndpointError> {
        let text = text.trim();
        if text.contains(char::is_whitespace) {
            return Err(EndpointError::Whitespace);
        }
        let mut url = Url::parse(text).map_err(|_| EndpointError::NotAnAddress)?;
        let Some(host) = url.host() else {
            return Err(EndpointError::NotAnAddress);
        };
        let is_near = is_this_machine(&host);
        let is_supabase = matches!(host, Host::Domain(name) if is_supabase(name));
        match url.scheme() {
            "https" => {}
            "http" if is_near => {}
            "http" => return Err(EndpointError::ClearText),
            _ => return Err(EndpointError::NotAnAddress),
        }
        if is_supabase {
            return Err(EndpointError::Supabase);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointError::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(EndpointError::Query);
        }
        let remark = match url.path() {
            PATH => None,
            "/" | "/webhooks/supabase/" => {
                let was_given = url.path() != "/";
                url.set_path(PATH);
                (!was_given).then_some(Remark::PathAdded)
            }
            // A proxy may serve the path below a folder of its own.
            path if path.ends_with(PATH) => None,
            _ => Some(Remark::OtherPath),
        };
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/%[]".contains(&b);
        if !url.as_str().bytes().all(is_plain) {
            return Err(EndpointError::Character);
        }
        Ok(Self { url, remark })
    }

    pub(super) fn as_str(&self) -> &str {
        self.url.as_str()
    }

    pub(super) fn remark(&self) -> Option<Remark> {
        self.remark
    }
}

fn is_this_machine(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || *name == MACHINE_OF_THE_CONTAINER,
        Host::Ipv4(address) => Ipv4Addr::is_loopback(address),
        Host::Ipv6(address) => Ipv6Addr::is_loopback(address),
    }
}

fn is_supabase(name: &str) -> bool {
    ["supabase.co", "supabase.com", "supabase.in"]
        .iter()
        .any(|domain| {
            name.strip_suffix(domain)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_ends_in_our_path_whatever_was_typed() {
        let ours = "https://sync.example.org/webhooks/supabase";
        for (text, expected, remark) in [
            (ours, ours, None),
            ("https://sync.example.org", ours, Some(Remark::PathAdded)),
            (" https://SYNC.example.org/ ", ours, Some(Remark::PathAdded)),
            ("https://sync.example.org/webhooks/supabase/", ours, None),
            (
                "https://example.org:8443/sync/webhooks/supabase",
                "https://example.org:8443/sync/webhooks/supabase",
                None,
            ),
            (
                "https://example.org/webhook",
                "https://example.org/webhook",
                Some(Remark::OtherPath),
            ),
            (
                "http://127.0.0.1:8080",
                "http://127.0.0.1:8080/webhooks/supabase",
                Some(Remark::PathAdded),
            ),
            (
                "http://[::1]:8080/webhooks/supabase",
                "http://[::1]:8080/webhooks/supabase",
                None,
            ),
            (
                "http://host.docker.internal:8080/webhooks/supabase",
                "http://host.docker.internal:8080/webhooks/supabase",
                None,
            ),
            (
                "https://школа.рф",
                "https://xn--80atdl2c.xn--p1ai/webhooks/supabase",
                Some(Remark::PathAdded),
            ),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(
                (endpoint.as_str(), endpoint.remark()),
                (expected, remark),
                "{text}"
            );
        }
    }

    #[test]
    fn what_would_lose_or_leak_events_is_refused() {
        use EndpointError::{
            Character, ClearText, Credentials, NotAnAddress, Query, Supabase, Whitespace,
        };
        for (text, expected) in [
            ("", NotAnAddress),
            ("sync.example.org", NotAnAddress),
            ("ftp://sync.example.org", NotAnAddress),
            ("mailto:a@example.org", NotAnAddress),
            ("postgres://u:p@db.example.org/postgres", NotAnAddress),
            ("https://sync.example .org", Whitespace),
            ("https://sync.example.org/a\nb", Whitespace),
            ("http://sync.example.org/webhooks/supabase", ClearText),
            ("http://127.0.0.1.example.org", ClearText),
            ("https://user:pass@sync.example.org", Credentials),
            ("https://sync.example.org/?token=1", Query),
            ("https://sync.example.org/#a", Query),
            ("https://sync.example.org/it's", Character),
            ("https://sync.example.org/$tripwire_sync_setup$", Character),
            ("https://abcdefghijklmnopqrst.supabase.co", Supabase),
            ("https://supabase.com/dashboard", Supabase),
        ] {
            assert_eq!(Endpoint::parse(text), Err(expected), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_taken_can_stand_in_a_literal(text in "(https://[a-z]{1,5}\\.org)?\\PC{0,30}") {
            if let Ok(endpoint) = Endpoint::parse(&text) {
                assert!(!endpoint.as_str().contains(['\'', '$', '\\', '"', ' ']), "{endpoint:?}");
            }
        }
    }
}
