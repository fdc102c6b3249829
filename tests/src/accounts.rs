//! Accounts that an agent sees instead of this machine's: its own `/etc/passwd` and `/etc/group`, and a directory service.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::files::temp_dir;
use crate::{Agent, Config};

/// As a directory service has them: a name is found in any case, by its first line; asked by number, the first line counts too.
const GETENT: &str = r#"#!/bin/sh
database=$1; shift
echo >> DIRECTORY-asked
printf '%s\n' "$@" | awk -F: '
  NR == FNR { if ($0 != "") key[++keys] = tolower($0); next }
  { line[++lines] = $0; name[lines] = tolower($1); id[lines] = $3 }
  END {
    for (k = 1; k <= keys; k++)
      for (l = 1; l <= lines; l++)
        if (name[l] == key[k] || id[l] == key[k]) { print line[l]; break }
  }' - /etc/"$database" DIRECTORY
"#;

/// The accounts; files that are changed in place, so that the agent sees each change.
pub struct Accounts(TempDir);

impl Accounts {
    /// root, and these lines.
    pub fn new(passwd: &str, group: &str) -> Self {
        let accounts = Self(temp_dir());
        fs::set_permissions(accounts.0.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        accounts.set("passwd", &format!("root:x:0:0:root:/root:/bin/sh\n{passwd}"));
        accounts.set("group", &format!("root:x:0:\n{group}"));
        accounts
    }

    /// With these users in a directory service besides.
    #[must_use]
    pub fn with_directory(self, passwd: &str) -> Self {
        self.set("directory", passwd);
        let script = GETENT.replace("DIRECTORY", &self.file("directory").to_string_lossy());
        self.set("getent", &script);
        fs::set_permissions(self.file("getent"), fs::Permissions::from_mode(0o755)).expect("chmod");
        self
    }

    /// How often the directory service was asked.
    pub fn asked(&self) -> usize {
        fs::read_to_string(self.file("directory-asked")).map_or(0, |lines| lines.lines().count())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces a file's content, in place.
    pub fn set(&self, file: &str, text: &str) {
        fs::write(self.file(file), text).expect("accounts");
    }

    /// A launcher of programs that see these accounts.
    pub fn launcher(&self) -> Vec<String> {
        let bind = |name: &str, to: &str| format!("mount --bind {} {to} && ", self.file(name).display());
        let mut line = bind("passwd", "/etc/passwd") + &bind("group", "/etc/group");
        if self.file("getent").exists() {
            line += &bind("getent", "/usr/bin/getent");
        }
        line += "exec \"$@\"";
        ["unshare", "--mount", "sh", "-c", &line, "sh"]
            .map(str::to_owned)
            .to_vec()
    }

    /// An agent that sees these accounts, once it tracks.
    pub fn agent(&self, config: &Config) -> Agent {
        let launcher = self.launcher();
        let launcher: Vec<&str> = launcher.iter().map(String::as_str).collect();
        Agent::tracking_under(config, &launcher)
    }
}
