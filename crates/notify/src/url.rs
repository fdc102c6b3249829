//! Addresses in which there may be a secret: a password before the host, a token in the path or after it. They are shown as
//! `scheme://host/…`, in messages and by `{:?}` alike; only [`Url::reveal`] gives all of it, to the code that connects.

use std::fmt;

/// What is not shown.
const HIDDEN: &str = "…";
/// Of a password.
const STARS: &str = "***";
/// A shorter part of an address is no token, but a word such as `hook` or `v1`.
const TOKEN_CHARS_MIN: usize = 8;

/// An address.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// As it is written.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// All of it, to connect: not for anything that is written down.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether it is encrypted by this scheme.
    pub fn is(&self, scheme: &str) -> bool {
        scheme_of(&self.0).is_some_and(|(s, _)| s.eq_ignore_ascii_case(scheme))
    }

    /// Who logs in, as it is written before the host: user and password.
    pub fn login(&self) -> Option<(&str, Option<&str>)> {
        let (login, _) = parts(&self.0)?.authority.rsplit_once('@')?;
        Some(match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        })
    }

    /// What must not come back in an error: others repeat what they were asked for.
    pub fn secrets(&self) -> Vec<String> {
        let Some(parts) = parts(&self.0) else {
            return vec![self.0.clone()];
        };
        let mut all = vec![self.0.clone(), parts.rest.to_owned()];
        let words = parts.rest.split(['/', '?', '&', '=', '#', ';']);
        all.extend(words.filter(|w| w.len() >= TOKEN_CHARS_MIN).map(str::to_owned));
        if let Some((login, _)) = parts.authority.rsplit_once('@') {
            all.push(login.to_owned());
            all.extend(login.split_once(':').map(|(_, password)| password.to_owned()));
        }
        // A mere `/` is none.
        all.retain(|word| word.len() > 1);
        all
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

struct Parts<'a> {
    scheme: &'a str,
    authority: &'a str,
    /// From the first `/`, `?` or `#` on.
    rest: &'a str,
}

fn scheme_of(text: &str) -> Option<(&str, &str)> {
    text.split_once("://")
}

fn parts(text: &str) -> Option<Parts<'_>> {
    let (scheme, after) = scheme_of(text)?;
    let end = after.find(['/', '?', '#', '\\']).unwrap_or(after.len());
    let (authority, rest) = after.split_at(end);
    Some(Parts {
        scheme,
        authority,
        rest,
    })
}

/// An address without what may be secret in it. Of a broker's, user and virtual host are no secrets.
pub fn shown(text: &str) -> String {
    let Some(Parts {
        scheme,
        authority,
        rest,
    }) = parts(text)
    else {
        return HIDDEN.to_owned();
    };
    let (login, host) = match authority.rsplit_once('@') {
        Some((login, host)) => (Some(login), host),
        None => (None, authority),
    };
    if !is_host(host)
        || !scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c))
    {
        // Perhaps the password has a `/` in it.
        return format!("{HIDDEN}://{HIDDEN}");
    }
    let is_broker = scheme.to_ascii_lowercase().starts_with("amqp");
    let login = match login.map(|l| {
        l.split_once(':')
            .map_or((l, None), |(user, word)| (user, Some(word)))
    }) {
        None => String::new(),
        Some((user, None)) if is_broker => format!("{user}@"),
        Some((user, Some(_))) if is_broker => format!("{user}:{STARS}@"),
        Some(_) => format!("{STARS}@"),
    };
    let rest = match (is_broker, rest.find(['?', '#'])) {
        (true, None) => rest.to_owned(),
        (true, Some(at)) => format!("{}?{HIDDEN}", rest.get(..at).unwrap_or_default()),
        (false, _) if matches!(rest, "" | "/") => rest.to_owned(),
        (false, _) => format!("/{HIDDEN}"),
    };
    format!("{scheme}://{login}{host}{rest}")
}

/// A name, or an address, and perhaps a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, ""),
    };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let fits = match bare {
        Some(v6) => v6.chars().all(|c| c.is_ascii_hexdigit() || ":.".contains(c)),
        None => host.chars().all(|c| c.is_alphanumeric() || "._-".contains(c)),
    };
    fits && port.chars().all(|c| c.is_ascii_digit())
}

/// A text that may begin with an address, without what may be secret in that: what was written down by earlier versions.
pub fn shown_at_begin(text: &str) -> String {
    let (first, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
    let (url, colon) = match first.strip_suffix(':') {
        Some(url) => (url, ":"),
        None => (first, ""),
    };
    match ["http://", "https://", "amqp://", "amqps://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
    {
        true => format!("{}{colon}{rest}", shown(url)),
        false => text.to_owned(),
    }
}

/// Whether a host's name means this host, so that nothing goes over a network.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    let address = bare.parse::<std::net::IpAddr>().map(|ip| ip.to_canonical());
    address.is_ok_and(|ip| ip.is_loopback()) || bare.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scheme_and_host_are_shown() {
        for (text, expected) in [
            (
                "https://hooks.example.org/services/T0/B0/secret",
                "https://hooks.example.org/…",
            ),
            (
                "https://u:p@hooks.example.org:8443/x?token=y",
                "https://***@hooks.example.org:8443/…",
            ),
            ("http://host?token=secret", "http://host/…"),
            ("http://host#secret", "http://host/…"),
            ("http://host:80/", "http://host:80/"),
            ("http://[::1]:80/x", "http://[::1]:80/…"),
            ("https://token@host", "https://***@host"),
            ("https://user:se/cret@host/", "…://…"),
            ("hooks.example.org/secret", "…"),
            ("amqp://me:secret@host:5672/%2f", "amqp://me:***@host:5672/%2f"),
            ("amqps://me@host/v?auth_mechanism=secret", "amqps://me@host/v?…"),
            ("amqp://me:se@cret@host/", "amqp://me:***@host/"),
        ] {
            assert_eq!(Url::new(text.into()).to_string(), expected);
            assert_eq!(format!("{:?}", Url::new(text.into())), expected);
        }
        assert_eq!(
            shown_at_begin("https://h/secret: connection refused"),
            "https://h/…: connection refused"
        );
        assert_eq!(shown_at_begin("550 see https://h/help"), "550 see https://h/help");
    }

    #[test]
    fn what_others_must_not_repeat() {
        let all = Url::new("https://u:pw12@h/services/T00000000?k=secretsecret".into()).secrets();
        for word in [
            "u:pw12",
            "pw12",
            "/services/T00000000?k=secretsecret",
            "T00000000",
            "secretsecret",
        ] {
            assert!(all.iter().any(|s| s == word), "{word}: {all:?}");
        }
        assert_eq!(Url::new("http://h/".into()).secrets(), ["http://h/"]);
    }

    #[test]
    fn loopback_is_this_host_only() {
        for here in [
            "127.0.0.1",
            "127.9.9.9",
            "localhost",
            "LOCALHOST",
            "[::1]",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_loopback(here), "{here}");
        }
        for there in [
            "10.0.0.1",
            "localhost.example.org",
            "127.0.0.1.example.org",
            "0.0.0.0",
            "::",
            "",
            "h",
        ] {
            assert!(!is_loopback(there), "{there}");
        }
    }
}
