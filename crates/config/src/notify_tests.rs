#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::super::Config;
use super::*;
use purge_notify::settings::Tls;

fn parse(keys: &str) -> Result<Notify, Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    let volume = "[[volume]]\nname = \"s\"\npath = \"/export/s\"\n[notify]\n";
    std::fs::write(&file, format!("{volume}{keys}\n")).unwrap();
    let read = Config::load(&file).map(|config| config.notify);
    read.map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

#[test]
fn the_sinks_of_the_contract_are_read_with_their_defaults() {
    let notify = parse(
        "smtp = { host = \"127.0.0.1\", port = 2525, from = \"purge@host\", to = \"{user}@example.org\" }\n\
         webhook = { url = \"http://127.0.0.1:8080/hook\" }\n\
         amqp = { url = \"amqp://127.0.0.1:5672/%2f\", exchange = \"purge\" }\n\
         exec = [ { command = [\"/bin/true\"] }, { name = \"other\", command = [\"/bin/false\", \"-x\"], events = [\"purged\"] } ]\n\
         warn_before = \"3d\"",
    )
    .unwrap();
    let names: Vec<(&str, u64, usize)> = notify
        .sinks
        .iter()
        .map(|s| (s.name.as_str(), s.digest, s.events.len()))
        .collect();
    let all = Kind::ALL.len();
    let expected = [
        ("smtp", 86_400, all),
        ("webhook", 0, all),
        ("amqp", 0, all),
        ("exec", 0, all),
        ("other", 0, 1),
    ];
    assert_eq!(names, expected);
    assert_eq!(
        (notify.warn_before, notify.retry_for, notify.list_max),
        (3 * 86_400, 7 * 86_400, 1000)
    );
    let Means::Smtp(smtp) = &notify.sinks.first().unwrap().means else {
        unreachable!("the first is mail")
    };
    assert_eq!((smtp.port, smtp.tls), (2525, Tls::Opportunistic));
}

#[test]
fn what_would_tell_no_user_is_refused_in_words() {
    let smtp = |more: &str| {
        format!("smtp = {{ host = \"h\", from = \"purge@host\", to = \"{{user}}@example.org\"{more} }}")
    };
    let cases = [
        (String::new(), "no smtp, webhook, amqp or exec"),
        (
            "smtp = { host = \"h\", from = \"nobody\", to = \"{user}@x\" }".into(),
            "is no address",
        ),
        ("smtp = { host = \"h\", to = \"{user}@x\" }".into(), "has no from"),
        (smtp(", user = \"u\""), "belong together"),
        (smtp(", prot = 25"), "port"),
        (smtp(", events = [\"purge\"]"), "purged"),
        (smtp(", events = []"), "nothing would be sent"),
        (
            smtp(", digest = \"60d\""),
            "a notice that comes later is of no use",
        ),
        (
            "webhook = { url = \"ftp://x/\" }".into(),
            "no http or https address",
        ),
        (
            "webhook = { url = \"http://x/\", secret_file = \"/nowhere/at/all\" }".into(),
            "is no file",
        ),
        (
            "webhook = [ { url = \"http://x/\" }, { url = \"http://y/\" } ]".into(),
            "two sinks are called",
        ),
        (
            "amqp = { url = \"http://x/\", exchange = \"e\" }".into(),
            "no AMQP address",
        ),
        (
            "amqp = { url = \"amqp://x/\", exchange = \"e\", ca_file = \"/etc/hosts\" }".into(),
            "not encrypted",
        ),
        (
            "webhook = { url = \"http://x/\", ca_file = \"/etc/hosts\" }".into(),
            "not encrypted",
        ),
        (
            "amqp = { url = \"amqp://x/\", exchange = \"\" }".into(),
            "no name",
        ),
        ("exec = { command = [\"tell\"] }".into(), "absolute path"),
        (
            format!("{}\ntemplates = \"/nowhere/at/all\"", smtp("")),
            "no directory",
        ),
    ];
    for (keys, part) in cases {
        let faults = parse(&keys).map_err(|f| f.join("\n"));
        let said = faults.expect_err(&keys);
        assert!(said.contains(part), "{keys}: {said}");
    }
}
