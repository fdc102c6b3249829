//! `[notify]`: who gets notices, and how.

use toml::de::DeTable;

use super::{Form, Key, Table, Unless, Word, keys, says};

keys! {
    WARN_BEFORE = Key::with_default("warn_before", Form::Duration, "\"7d\"")
        .doc("Owners get a notice of what expires within this time.");
    LIST_MAX = Key::with_default("list_max", Form::Count, "1000")
        .doc("A list (an attachment, or `list.entries`) names this many entries at most, and counts the others.");
    RETRY_FOR = Key::with_default("retry_for", Form::Duration, "\"7d\"")
        .doc("The agent gives up a notice that its sink has not accepted after this time.");
    DRY_RUN = Key::with_default("dry_run", Form::Flag, "false")
        .doc("true: the agent sends no notice and notes none as sent. `purgectl notices preview` shows what it would send, to whom and by \
              which sink.");
    HOLD_FIRST = Key::with_default("hold_first", Form::Duration, "\"1h\"")
        .doc("Where an agent that ran without notices gets a [notify], its first notices to owners wait for this time. The operator gets \
              a notice of how many they are (first-notices), looks at them (`purgectl notices preview`) and sends them at once (`purgectl \
              notices release`) or not at all (dry_run). \"0s\": they do not wait.");
    ADDRESSES = Key::optional("addresses", Form::Text("an absolute path"), "\"/etc/purge-agent/addresses\"")
        .doc("Addresses of owners: lines `user address` in this file, else an address in the gecos field with gecos = true, else the `to` of \
              smtp.");
    GECOS = Key::with_default("gecos", Form::Flag, "false")
        .doc("true: an address in the gecos field of an account (getent passwd) is its address.");
    TEMPLATES = Key::optional("templates", Form::Text("an absolute path"), "\"/etc/purge-agent/templates\"")
        .doc("The directory of your own texts, in Jinja's language: owner-subject.txt, owner-body.txt, operator-subject.txt, \
              operator-body.txt. A file that is missing is replaced by the built-in text. Texts can use to, events, host, notice_id, \
              warn_seconds, list_place, and the filters size, limit, count, when, day, duration, things.");
    SMTP = Key::optional(
        "smtp",
        Form::Tables(&SMTP_TABLE),
        "{ host = \"127.0.0.1\", port = 25, from = \"purge@host\", to = \"{user}@example.org\", operator = \"storage@example.org\" }",
    )
    .doc("Mail. Files of a sink, like those of listen.tls, are absolute paths, or credential:NAME for what the unit loads \
          (LoadCredential=NAME:PATH). Files with secrets belong to root, and only root can read them (chmod 600).");
    WEBHOOK = Key::optional(
        "webhook",
        Form::Tables(&WEBHOOK_TABLE),
        "{ url = \"http://127.0.0.1:8080/hook\", secret_file = \"/etc/purge-agent/hook.secret\", timeout = \"30s\" }",
    )
    .doc("JSON by POST; accepted when the answer is 2xx.");
    AMQP = Key::optional(
        "amqp",
        Form::Tables(&AMQP_TABLE),
        "{ url = \"amqp://purge@127.0.0.1:5672/%2f\", exchange = \"purge\", password_file = \"/etc/purge-agent/amqp.password\" }",
    )
    .doc("The same JSON, persistent, to a topic exchange, which the agent declares if it does not exist; accepted when the broker confirms it \
          and a queue has it.");
    EXEC = Key::optional(
        "exec",
        Form::Tables(&EXEC_TABLE),
        "{ command = [\"/usr/local/sbin/tell\", \"--json\"], timeout = \"30s\" }",
    )
    .doc("The same JSON on the standard input of a program, as root and in the unit's sandbox; accepted when the program exits with 0. Its \
          environment has PURGE_NOTICE_ID, PURGE_EVENT, PURGE_TO (the user, or operator) and PURGE_SUBJECT (one line).");
}

/// The table.
pub const NOTIFY: Table = Table {
    kind: "notify",
    shown_as: Some("notify"),
    named_by: "",
    heading: "[notify]",
    doc: "Events, and who gets a notice of each: will-expire (an owner's files that expire within warn_before, once), expired (an owner's files \
          that a rule with action = \"notify\" found), purged (what a run took from an owner), over-quota and back-under (to the user; a \
          directory's owner; of a group's quota, the operator). To the operator: run-failed, coverage-gap, watermark-reached, \
          watermark-ended, trigger-stopped, trouble, trouble-ended, first-notices. A notice stays in STATE_DIR/notices until its sink has accepted it, over \
          restarts. The agent tries again after 5 s, 10 s, ... 5 min. No sink sends an event twice. `purgectl notices` shows what was sent, \
          waits and failed; `purgectl notices test --sink NAME` tries a sink. A reload reads this table again. All sinks but exec need a \
          network: see /usr/share/purge-agent/network.conf. One sink of a kind is a table, several are a list of tables, each with a name.",
    in_use: false,
    keys: KEYS,
};

/// What every sink has.
pub mod sink {
    use crate::keys::{Form, Key};

    const fn digest(value: &'static str) -> Key {
        Key::with_default("digest", Form::Duration, value).doc(
            "An owner gets one notice in this time at most; \"0s\": one an event, at once. Notices to the operator are always sent at once.",
        )
    }

    pub(crate) const NAME: &Key = &Key::optional("name", Form::Text("a name"), "\"storage-team\"")
        .doc("The name of the sink. Without it, a sink has the name of its kind.");
    pub(crate) const EVENTS: &Key =
        &Key::optional("events", Form::Texts("events"), "[\"purged\", \"run-failed\"]")
            .doc("Only these events; without it, all.");
    pub(crate) const DIGEST: &Key = &digest("\"0s\"");
    pub(crate) const MAIL_DIGEST: &Key = &digest("\"1d\"");
    pub(crate) const CA_FILE: &Key = &Key::optional(
        "ca_file",
        Form::Text("a PEM file"),
        "\"/etc/purge-agent/tls/ca.pem\"",
    )
    .doc("Trusts an authority besides the system's.");
    pub(crate) const PASSWORD_FILE: &Key = &Key::optional(
        "password_file",
        Form::Text("a file"),
        "\"/etc/purge-agent/sink.password\"",
    )
    .doc("The file with the password.");
    pub(crate) const TIMEOUT: &Key = &Key::with_default("timeout", Form::Duration, "\"30s\"")
        .doc("The agent waits this long for an answer, 1s to 10m.");
}

/// Mail.
pub mod smtp {
    use super::sink::{CA_FILE, EVENTS, MAIL_DIGEST, PASSWORD_FILE};
    use super::{Form, Key, Unless, Word, gives_a_user, is_wrapped, keys};

    keys! {
        NAME = *super::sink::NAME;
        ALL_EVENTS = *EVENTS;
        DIGEST = *MAIL_DIGEST;
        HOST = Key::required("host", Form::Text("a host"), "\"127.0.0.1\"").doc("The mail server.");
        PORT = Key::with_default("port", Form::Count, "25")
            .unless(Unless {
                holds: is_wrapped,
                words: "with tls = \"wrapped\"",
                value: "465",
            })
            .doc("Its port.");
        FROM = Key::required("from", Form::Text("an address"), "\"purge@host\"").doc("The sender.");
        TO = Key::required("to", Form::Text("an address"), "\"{user}@example.org\"")
            .doc("The address of an owner who has no other; {user} stands for the name.");
        OPERATOR = Key::optional("operator", Form::Text("an address"), "\"storage@example.org\"")
            .doc("The address of the operator. Without it, such notices are sent to `to` as root.");
        TLS = Key::with_default(
            "tls",
            Form::Choice(&[
                Word::new("starttls"),
                Word::new("wrapped"),
                Word::new("opportunistic"),
                Word::new("none"),
            ]),
            "\"opportunistic\"",
        )
        .unless(Unless {
            holds: gives_a_user,
            words: "with user",
            value: "\"starttls\"",
        })
        .doc("How the connection is protected. opportunistic: where the server offers it, with any certificate.");
        CA = *CA_FILE;
        USER = Key::optional("user", Form::Text("a name"), "\"purge\"").doc("The user at the mail server, with password_file.");
        PASSWORD = *PASSWORD_FILE;
    }
}

fn is_wrapped(table: &DeTable<'_>) -> bool {
    says(table, smtp::TLS, "wrapped")
}

fn gives_a_user(table: &DeTable<'_>) -> bool {
    table.contains_key(smtp::USER.name)
}

/// JSON by POST.
pub mod webhook {
    use super::sink::{CA_FILE, EVENTS, TIMEOUT};
    use super::{Form, Key, keys};

    keys! {
        NAME = *super::sink::NAME;
        ALL_EVENTS = *EVENTS;
        DIGEST = *super::sink::DIGEST;
        URL = Key::required("url", Form::Text("an address"), "\"http://127.0.0.1:8080/hook\"")
            .doc("http or https. It must contain no user and no password.");
        SECRET_FILE = Key::optional("secret_file", Form::Text("a file"), "\"/etc/purge-agent/hook.secret\"")
            .doc("Each request is signed with this secret as standardwebhooks.com describes (webhook-signature).");
        TOKEN_FILE = Key::optional("token_file", Form::Text("a file"), "\"/etc/purge-agent/hook.token\"")
            .doc("Each request carries `Authorization: Bearer TOKEN` (https, or to this host).");
        CA = *CA_FILE;
        WAIT = *TIMEOUT;
    }
}

/// JSON to a broker.
pub mod amqp {
    use super::sink::{CA_FILE, EVENTS, PASSWORD_FILE};
    use super::{Form, Key, keys};

    keys! {
        NAME = *super::sink::NAME;
        ALL_EVENTS = *EVENTS;
        DIGEST = *super::sink::DIGEST;
        URL = Key::required("url", Form::Text("an address"), "\"amqp://127.0.0.1:5672/%2f\"")
            .doc("With amqps:// the broker's certificate must be valid for the name in the URL and signed by a trusted authority; otherwise \
                  nothing is sent.");
        EXCHANGE = Key::required("exchange", Form::Text("a name"), "\"purge\"").doc("The topic exchange.");
        ROUTING_KEY = Key::optional("routing_key", Form::Text("a routing key"), "\"purge\"")
            .doc("Without it, the routing key is EVENT.VOLUME.");
        PASSWORD = *PASSWORD_FILE;
        CA = *CA_FILE;
    }
}

/// JSON to a program.
pub mod exec {
    use super::sink::{EVENTS, TIMEOUT};
    use super::{Form, Key, keys};

    keys! {
        NAME = *super::sink::NAME;
        ALL_EVENTS = *EVENTS;
        DIGEST = *super::sink::DIGEST;
        COMMAND = Key::required("command", Form::Texts("words"), "[\"/usr/local/sbin/tell\", \"--json\"]")
            .doc("The program, by its absolute path, and its arguments. No shell reads this.");
        WAIT = *TIMEOUT;
    }
}

/// The tables in the lines of `smtp`.
pub const SMTP_TABLE: Table = Table {
    kind: "notify.smtp",
    shown_as: None,
    named_by: "name",
    heading: "",
    doc: "",
    in_use: false,
    keys: smtp::KEYS,
};
/// See [`SMTP_TABLE`].
pub const WEBHOOK_TABLE: Table = Table {
    kind: "notify.webhook",
    keys: webhook::KEYS,
    ..SMTP_TABLE
};
/// See [`SMTP_TABLE`].
pub const AMQP_TABLE: Table = Table {
    kind: "notify.amqp",
    keys: amqp::KEYS,
    ..SMTP_TABLE
};
/// See [`SMTP_TABLE`].
pub const EXEC_TABLE: Table = Table {
    kind: "notify.exec",
    keys: exec::KEYS,
    ..SMTP_TABLE
};
