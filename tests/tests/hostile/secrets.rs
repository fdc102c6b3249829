//! Secrets of sinks are never shown, and where other users could read them the configuration is refused.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use purge_tests::certs::{Authority, Validity, free_port, listen_keys};
use purge_tests::files::{temp_dir, walk, write_secret};
use purge_tests::notices::{PATIENCE, Tree, notices};
use purge_tests::wait::until;
use purge_tests::{Agent, Config, Fs, Mount, binary, need};

/// Parts of addresses and files that must not be seen anywhere.
const SECRETS: [&str; 5] = [
    "T0PATHTOKEN",
    "QUERYSECRET",
    "BEARERTOKEN",
    "SIGNINGKEY",
    "BROKERWORD",
];

/// An endpoint that repeats what it was asked, with 404: as many do.
fn echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut said, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
                    length = n.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
                if line.starts_with("POST") || line.to_lowercase().starts_with("authorization") {
                    said.push_str(&line);
                }
            }
            std::io::copy(
                &mut std::io::Read::take(&mut reader, length),
                &mut std::io::sink(),
            )
            .unwrap();
            let said = format!("Cannot {said}\x1b[2J\u{202e}");
            let head = format!(
                "HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                said.len()
            );
            reader.get_mut().write_all((head + &said).as_bytes()).unwrap();
        }
    });
    port
}

#[test]
fn secrets_come_out_nowhere() {
    let mut mount = need!(Mount::sized(Fs::Ext4, 64, 2000));
    let tree = Tree::make(&mut mount);
    let dir = temp_dir();
    let (token, key) = (dir.path().join("token"), dir.path().join("key"));
    write_secret(&token, "BEARERTOKEN\n");
    write_secret(&key, "SIGNINGKEY\n");
    let (repeats, closed) = (echo(), free_port());
    let path = "services/T0PATHTOKEN?k=QUERYSECRET";
    let sinks = format!(
        "webhook = [ {{ name = \"repeats\", url = \"http://127.0.0.1:{repeats}/{path}\", token_file = {token:?}, secret_file = {key:?} }},\n\
         {{ name = \"closed\", url = \"http://127.0.0.1:{closed}/{path}\" }} ]\n\
         amqp = {{ url = \"amqp://me:BROKERWORD@127.0.0.1:{closed}/%2f\", exchange = \"e\" }}\n\
         exec = {{ command = [\"/bin/false\", \"--token\", \"BEARERTOKEN\"] }}"
    );
    let mut agent = Agent::prepared(&tree.config(&sinks));
    agent.environment("RUST_LOG", Path::new("trace"));
    agent.launch();
    agent.wait_until_tracking();
    let ctl = agent.ctl();
    let failed = |sink: &str| {
        let all = notices(&ctl, &["--sink", sink]);
        all.iter().any(|n| n.get("error").is_some_and(|e| e != ""))
    };
    until("an attempt by each", PATIENCE, || {
        ["repeats", "closed", "amqp", "exec"]
            .iter()
            .all(|s| failed(s))
            .then_some(())
    });
    let mut seen = Vec::new();
    for words in [
        "config show",
        "config show --output json",
        "notices",
        "notices --output json",
        "notices test --sink repeats",
        "notices test --sink closed",
        "notices test --sink amqp",
        "doctor",
        "status --output json",
    ] {
        seen.push((words.to_owned(), ctl.run(words.split(' ')).text()));
    }
    assert!(
        seen[4].1.contains("404") && seen[4].1.contains(&format!("http://127.0.0.1:{repeats}/…")),
        "{}",
        seen[4].1
    );
    assert!(
        !seen[4].1.contains('\x1b') && !seen[4].1.contains('\u{202e}'),
        "{:?}",
        seen[4].1
    );
    assert!(seen[0].1.contains("me:***@127.0.0.1"), "{}", seen[0].1);
    seen.push(("the log".into(), agent.said()));
    for entry in walk(&agent.state_dir()).iter().filter(|e| e.stat.is_file()) {
        let bytes = match fs::read(&entry.path) {
            Ok(bytes) => bytes,
            // The store writes its snapshots under new names, and removes the old ones.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => panic!("{}: {e}", entry.path.display()),
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        seen.push((entry.path.display().to_string(), text));
    }
    for (place, text) in seen {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} comes out in {place}: {text}");
        }
    }
}

/// What `check` says of the volume's configuration with these lines at its end.
fn check(dir: &Path, keys: &str) -> (bool, String) {
    let file = dir.join("agent.toml");
    let volume = format!("[[volume]]\nname = \"s\"\npath = {:?}\n", dir);
    fs::write(&file, format!("{volume}{keys}\n")).unwrap();
    let mut command = Command::new(binary("purge-agent"));
    let out = command.args(["check", "--config"]).arg(file).output().unwrap();
    let words = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&words).into_owned())
}

#[test]
fn addresses_that_give_a_secret_away_are_refused_with_the_cure() {
    let dir = temp_dir();
    let file = dir.path().join("secret");
    write_secret(&file, "SIGNINGKEY\n");
    let hook = |rest: &str| format!("[notify]\nwebhook = {{ {rest} }}");
    let broker = |rest: &str| format!("[notify]\namqp = {{ exchange = \"e\", {rest} }}");
    let of_file = format!("password_file = {file:?}");
    let refused = [
        (hook("url = \"https://T0PATHTOKEN@h.example.org/\""), "token_file"),
        (
            hook("url = \"https://u:T0PATHTOKEN@h.example.org/x\""),
            "token_file",
        ),
        (
            hook("url = \"https:\\u002f/u:T0PATHTOKEN@127.0.0.1/x\""),
            "token_file",
        ),
        (hook("url = \"h.example.org/T0PATHTOKEN\""), "no http or https"),
        (
            hook("url = \"ftp://u:T0PATHTOKEN@h/QUERYSECRET\""),
            "no http or https",
        ),
        (
            hook(&format!(
                "url = \"http://h.example.org/x\", token_file = {file:?}"
            )),
            "https://",
        ),
        (broker("url = \"amqp://u:BROKERWORD@h.example.org/\""), "amqps://"),
        (broker("url = \"amqp://u:BROKERWORD@10.1.2.3/\""), "amqps://"),
        (
            broker("url = \"AMQP://u:BROKERWORD@localhost.example.org/\""),
            "amqps://",
        ),
        (
            broker(&format!("url = \"amqp://u@h.example.org/\", {of_file}")),
            "amqps://",
        ),
        (broker("url = \"amqp:u:BROKERWORD@h\""), "no AMQP address"),
        (
            broker("url = \"amqp://u:BROKERWORD@127.0.0.1:x/\""),
            "no AMQP address",
        ),
    ];
    for (keys, cure) in refused {
        let (good, words) = check(dir.path(), &keys);
        assert!(!good && words.contains(cure), "{keys}: {words}");
        assert!(!SECRETS.iter().any(|s| words.contains(s)), "{keys}: {words}");
    }
    for keys in [
        hook(&format!(
            "url = \"https://h.example.org/x\", token_file = {file:?}"
        )),
        hook(&format!("url = \"http://127.0.0.1/x\", token_file = {file:?}")),
        broker("url = \"amqps://u:BROKERWORD@h.example.org/\""),
        broker("url = \"amqp://u:BROKERWORD@127.0.0.1/\""),
        broker("url = \"amqp://u:BROKERWORD@localhost/\""),
        broker(&format!("url = \"amqp://u@127.0.0.1/\", {of_file}")),
        broker("url = \"amqp://h.example.org/\""),
    ] {
        let (good, words) = check(dir.path(), &keys);
        assert!(good, "{keys}: {words}");
    }
}

#[test]
fn secret_files_that_others_can_read_are_refused_at_check_and_reload() {
    let dir = temp_dir();
    let file = dir.path().join("secret");
    write_secret(&file, "SIGNINGKEY\n");
    let authority = Authority::new("servers");
    let ca = authority.write(&dir.path().join("ca.pem"));
    let pair = authority.vouch(dir.path(), "agent", Validity::Long);
    let of = |keys: &str| format!("[notify]\n{keys}");
    let cases = [
        (
            &file,
            of(&format!(
                "webhook = {{ url = \"http://127.0.0.1/\", secret_file = {file:?} }}"
            )),
        ),
        (
            &file,
            of(&format!(
                "webhook = {{ url = \"http://127.0.0.1/\", token_file = {file:?} }}"
            )),
        ),
        (
            &file,
            of(&format!(
                "amqp = {{ url = \"amqp://u@127.0.0.1/\", exchange = \"e\", password_file = {file:?} }}"
            )),
        ),
        (
            &file,
            of(&format!(
                "smtp = {{ host = \"h\", from = \"a@b\", to = \"{{user}}@b\", user = \"u\", password_file = {file:?} }}"
            )),
        ),
        (
            &pair.key,
            format!("[listen]\n{}", listen_keys(free_port(), &pair, &ca)),
        ),
    ];
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for (secret, keys) in &cases {
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o660, false),
        ] {
            chmod(secret, mode);
            let (is_good, words) = check(dir.path(), keys);
            assert_eq!(is_good, good, "{mode:o} {keys}: {words}");
            let cure = format!("chmod 600 {}", secret.display());
            assert!(good || words.contains(&cure), "{words}");
        }
        chmod(secret, 0o600);
    }
    let mount = need!(Mount::sized(Fs::Ext4, 64, 2000));
    let sink = format!("webhook = {{ url = \"http://127.0.0.1:1/\", secret_file = {file:?} }}");
    let agent = Agent::tracking(&Config::backdated(&mount.dir("v")).notifying(&sink));
    chmod(&file, 0o644);
    agent.reload();
    agent.wait_until_it_says("everything stays as it was");
    assert!(agent.said().contains("chmod 600"), "{}", agent.said());
}

/// A secret that others can read meanwhile is not sent: it is in the notice's error, with the cure.
#[test]
fn a_secret_that_others_can_read_meanwhile_is_not_used() {
    let mut mount = need!(Mount::sized(Fs::Ext4, 64, 2000));
    let tree = Tree::make(&mut mount);
    let dir = temp_dir();
    let files = ["token", "key", "word"].map(|name| dir.path().join(name));
    files.iter().for_each(|file| write_secret(file, "SIGNINGKEY\n"));
    let [token, key, word] = &files;
    let (repeats, silent) = (echo(), free_port());
    let sinks = format!(
        "webhook = [ {{ name = \"token\", url = \"http://127.0.0.1:{repeats}/\", token_file = {token:?} }},\n\
         {{ name = \"key\", url = \"http://127.0.0.1:{repeats}/\", secret_file = {key:?} }} ]\n\
         amqp = {{ name = \"word\", url = \"amqp://me@127.0.0.1:{silent}/%2f\", exchange = \"e\", password_file = {word:?} }}"
    );
    let agent = Agent::tracking(&tree.config(&sinks));
    let ctl = agent.ctl();
    for mode in [0o640, 0o604] {
        for file in &files {
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        }
        for sink in ["token", "key", "word"] {
            let said = ctl.run(["notices", "test", "--sink", sink]).text();
            assert!(
                said.contains("can be read or written by others than root"),
                "{sink}: {said}"
            );
            assert!(said.contains("chmod 600"), "{sink}: {said}");
        }
    }
    for file in &files {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let said = ctl.run(["notices", "test", "--sink", "token"]).text();
    assert!(said.contains("404"), "{said}");
}
