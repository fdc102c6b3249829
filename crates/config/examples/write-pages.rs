//! Writes the pages that are made from the entries of the configuration's keys: `systemd/agent.toml` and `docs/configuration.md`.

use std::path::Path;

use purge_config::keys::pages;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::write(root.join("systemd/agent.toml"), pages::example())?;
    std::fs::write(root.join("docs/configuration.md"), pages::reference())
}
