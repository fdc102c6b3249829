//! `[listen]`: where clients connect.

use super::{Form, Key, Table, keys};

keys! {
    UNIX = Key::with_default("unix", Form::Text("an absolute path"), "\"/run/purge-agent/agent.sock\"")
        .at_restart()
        .in_use(true)
        .variable("PURGE_AGENT_LISTEN_UNIX")
        .doc("Clients connect to this socket. It has mode 0660, or 0666 if `self` is allowed in [access]. A client that can connect is \
              refused until [access] gives it a role.");
    OWNER = Key::with_default("owner", Form::Text("a user"), "\"root\"").doc("The owner of the socket, by name or number.");
    GROUP = Key::with_default("group", Form::Text("a group"), "\"root\"")
        .example("\"storage\"")
        .doc("The group of the socket, by name or number.");
    TCP = Key::optional("tcp", Form::Text("an address and port"), "\"0.0.0.0:7443\"")
        .at_restart()
        .doc("Clients of other hosts need a certificate (purgectl --endpoint https://HOST:7443 --ca FILE --cert FILE --key FILE). The \
              unit gives the agent no network: the drop-in /usr/share/purge-agent/network.conf does, and says which other hosts may \
              connect.");
    TLS = Key::optional(
        "tls",
        Form::Tables(&TLS_TABLE),
        "{ cert = \"/etc/purge-agent/tls/agent.pem\", key = \"/etc/purge-agent/tls/agent.key\", client_ca = \
         \"/etc/purge-agent/tls/clients.pem\" }",
    )
    .doc("The certificates for `tcp`. The agent loads new ones within seconds and at every reload; if they cannot be used, the old ones \
          stay in force. Each file is PEM: an absolute path, or credential:NAME for what the unit loads \
          (LoadCredential=NAME:PATH).");
    METRICS = Key::optional("metrics", Form::Text("an address and port"), "\"127.0.0.1:9469\"")
        .at_restart()
        .variable("PURGE_AGENT_LISTEN_METRICS")
        .doc("The address of /metrics for Prometheus, and of /healthz: 200, or 503 with the reason. There is no encryption: keep it on \
              the loopback. It needs the same drop-in.");
}

/// The table.
pub const LISTEN: Table = Table {
    kind: "listen",
    shown_as: Some("listen"),
    named_by: "",
    heading: "[listen]",
    doc: "Where clients connect.",
    in_use: true,
    keys: KEYS,
};

/// Files of certificates.
pub mod tls {
    use crate::keys::{Form, Key, keys};

    const FILE: Form = Form::Text("a PEM file");

    keys! {
        CERT = Key::required("cert", FILE, "\"/etc/purge-agent/tls/agent.pem\"")
            .doc("The certificate of the agent, and those between it and the authority that its clients trust.");
        KEY = Key::required("key", FILE, "\"/etc/purge-agent/tls/agent.key\"").doc("Its key, which only root can read.");
        CLIENT_CA = Key::required("client_ca", FILE, "\"/etc/purge-agent/tls/clients.pem\"")
            .doc("The authorities that sign the certificates of clients. [access] gives clients roles by the subjects of their certificates.");
        CRL = Key::optional("crl", Form::Texts("PEM files"), "\"/etc/purge-agent/tls/crl.pem\"")
            .doc("Lists of certificates that these authorities have revoked. The agent reads them again when they change. While a list has \
                  expired, no certificate of its authority is accepted.");
    }
}

/// The table in the line of `tls`.
pub const TLS_TABLE: Table = Table {
    kind: "tls",
    shown_as: Some("listen.tls"),
    named_by: "",
    heading: "",
    doc: "",
    in_use: false,
    keys: tls::KEYS,
};
