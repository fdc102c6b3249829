//! A real NFS server on the loopback of a network of its own (Debian's nfs-ganesha), and clients of it (libnfs).
//!
//! The server, rpcbind (which NFSv3 needs) and the clients live in a network, mount and process namespace of the test's: nothing is
//! registered, bound or left running outside. The volume is the same file system, so an agent outside sees every access.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

use crate::once::once;
use crate::once::with_file_server;
use crate::skip::Unmet;
use crate::wait::{SOON, until};
use crate::{files, sh};

const NFS_PORT: u16 = 20490;
const MOUNT_PORT: u16 = 20491;

/// Which NFS a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// NFSv3: stateless, the server keeps no open.
    V3,
    /// NFSv4.
    V4,
}

/// A running server; ended when dropped, with its clients.
#[derive(Debug)]
pub struct Server {
    namespace: Child,
    /// The namespace's first process, as this host numbers it.
    init: u32,
    client: PathBuf,
    dir: TempDir,
}

impl Server {
    /// Exports `dir`.
    ///
    /// # Errors
    /// When this host cannot do it: a reason to skip.
    ///
    /// # Panics
    /// When the server does not come up.
    pub fn export(export: &Path) -> Result<Self, Unmet> {
        for program in ["ganesha.nfsd", "rpcbind", "ip", "unshare"] {
            sh(Command::new("which").arg(program))
                .map_err(|_| Unmet(format!("{program} is not installed")))?;
        }
        let client = client_program()?;
        let dir = files::temp_dir();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("recovery")).map_err(|e| Unmet(e.to_string()))?;
        fs::write(at("ganesha.conf"), configuration(export, &at("recovery")))
            .map_err(|e| Unmet(e.to_string()))?;
        // rpcbind wants a /run of its own. The shell stays the namespace's init: when it is killed, all are.
        let script = format!(
            "ip link set lo up && mount -t tmpfs purge-tests /run && {{ rpcbind -f -w -i & ganesha.nfsd -F -f {0}/ganesha.conf \
             -L {0}/log -p {0}/pid -N NIV_EVENT & wait; }}",
            dir.path().display()
        );
        with_file_server(true);
        let namespace = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--pid",
                "--mount-proc",
                "--fork",
                "--kill-child=KILL",
            ])
            .args(["sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| Unmet(format!("unshare: {e}")))?;
        let mut server = Self {
            namespace,
            init: 0,
            client,
            dir,
        };
        until("the NFS server is up", SOON, || {
            let ended = server.namespace.try_wait().expect("the server's state");
            assert!(ended.is_none(), "the NFS server ended: {}", server.log());
            server.log().contains("NFS SERVER INITIALIZED").then_some(())
        });
        let pid = server.namespace.id();
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("the namespace's children");
        let init = children.split_whitespace().next().and_then(|c| c.parse().ok());
        server.init = init.expect("the namespace has an init");
        Ok(server)
    }

    /// Mounts the export, in a process of its own.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn client(&self, version: Version) -> Client {
        let url = match version {
            Version::V3 => format!("?version=3&nfsport={NFS_PORT}&mountport={MOUNT_PORT}"),
            Version::V4 => format!("?version=4&nfsport={NFS_PORT}"),
        };
        let mut process = Command::new("nsenter")
            .args(["--target", &self.init.to_string(), "--net", "--"])
            .arg(&self.client)
            .arg(format!("nfs://127.0.0.1/export{url}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter (util-linux) starts the client");
        let questions = process.stdin.take().expect("the client's stdin");
        let answers = BufReader::new(process.stdout.take().expect("the client's stdout"));
        let mut client = Client {
            process,
            questions: Some(questions),
            answers,
        };
        let mounted = client.answer();
        assert!(
            mounted.is_ok(),
            "mounting by {version:?}: {mounted:?}\n{}",
            self.log()
        );
        client
    }

    /// Takes the network between server and clients away, or gives it back. Connections outlive a short cut.
    ///
    /// # Panics
    /// When it cannot.
    pub fn network(&self, up: bool) {
        sh(Command::new("nsenter")
            .args(["--target", &self.init.to_string(), "--net", "--"])
            .args(["ip", "link", "set", "lo", if up { "up" } else { "down" }]))
        .expect("setting the namespace's network");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what the NFS server said\n{}---", self.log());
        }
        // The namespace's init goes with it (--kill-child), and everything in the namespace with that.
        let _ = self.namespace.kill();
        let _ = self.namespace.wait();
        for _ in 0..100 {
            if !Path::new(&format!("/proc/{}", self.init)).exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

/// A client with one mount.
#[derive(Debug)]
pub struct Client {
    process: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What an NFS call failed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// As in errno(3).
    pub errno: i32,
    /// libnfs' words.
    pub words: String,
}

impl Client {
    /// Asks one thing (see `nfs/client.c`) and waits for the answer.
    ///
    /// # Errors
    /// What the server answered.
    ///
    /// # Panics
    /// When the client has exited.
    pub fn ask(&mut self, question: &str) -> Result<u64, Refused> {
        let to = self.questions.as_mut().expect("a running client");
        writeln!(to, "{question}").expect("asking the NFS client");
        self.answer()
    }

    /// Asks what must go well.
    ///
    /// # Panics
    /// When it does not.
    pub fn must(&mut self, question: &str) -> u64 {
        self.ask(question).unwrap_or_else(|e| panic!("{question}: {e:?}"))
    }

    fn answer(&mut self) -> Result<u64, Refused> {
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .expect("the NFS client's answer");
        let mut words = line.trim_end().splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("ok"), Some(count), None) => Ok(count.parse().expect("a count")),
            (Some("error"), Some(errno), said) => Err(Refused {
                errno: errno.parse().expect("an errno"),
                words: said.unwrap_or_default().to_owned(),
            }),
            _ => panic!("the NFS client said {line:?}"),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It ends with its input.
        self.questions = None;
        let _ = self.process.wait();
    }
}

/// The client, compiled once.
fn client_program() -> Result<PathBuf, Unmet> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/nfs/client.c");
    let compile = |program: &Path| {
        let mut cc = Command::new("cc");
        cc.args(["-Wall", "-Wextra", "-Werror", "-O1", "-o"]).arg(program);
        sh(cc.arg(&source).arg("-lnfs")).map(drop)
    };
    once("nfs-client", std::slice::from_ref(&source), compile)
        .map_err(|e| Unmet(format!("the NFS client cannot be compiled (libnfs-dev): {e}")))
}

/// No `Bind_addr`: ganesha cannot resolve it where there is only `lo`. Without `Attr_Expiration_Time = 0` the server would show
/// sizes of a minute ago.
fn configuration(export: &Path, recovery: &Path) -> String {
    format!(
        "NFS_CORE_PARAM {{ NFS_Port = {NFS_PORT}; MNT_Port = {MOUNT_PORT}; Protocols = 3, 4; mount_path_pseudo = true; \
         Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }}\n\
         NFSV4 {{ Graceless = true; Lease_Lifetime = 10; Grace_Period = 10; Minor_Versions = 0, 1, 2; RecoveryBackend = fs; \
         RecoveryRoot = {recovery:?}; Only_Numeric_Owners = true; }}\n\
         NFS_KRB5 {{ Active_krb5 = false; }}\n\
         EXPORT {{ Export_Id = 77; Path = {export:?}; Pseudo = /export; Access_Type = RW; Squash = No_Root_Squash; \
         SecType = sys; Protocols = 3, 4; Transports = TCP; Attr_Expiration_Time = 0; FSAL {{ Name = VFS; }} }}\n"
    )
}
