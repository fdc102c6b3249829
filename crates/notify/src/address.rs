//! An owner's mail address: from the map file, else from the user's gecos field, else by the sink's pattern.

use std::path::Path;

use crate::settings::Addresses;
use purge_base::accounts::user_gecos;
use purge_sys::trusted;

/// Between a name and its address.
const SEPARATORS: [char; 3] = [' ', '\t', ':'];
/// A million lines.
const MAP_BYTES_MAX: u64 = 64 << 20;

/// The address of a user.
///
/// # Errors
/// When the map file cannot be read: no user is written to at a guessed address then.
pub fn of(user: &str, addresses: &Addresses, pattern: &str) -> Result<String, String> {
    if let Some(file) = &addresses.map
        && let Some(found) = in_file(file, user)?
    {
        return Ok(found);
    }
    if addresses.gecos
        && let Some(found) = user_gecos(user).as_deref().and_then(in_gecos)
    {
        return Ok(found);
    }
    Ok(pattern.replace("{user}", user))
}

fn in_file(file: &Path, user: &str) -> Result<Option<String>, String> {
    let text =
        trusted::read(file, MAP_BYTES_MAX).map_err(|e| format!("addresses: {}", std::io::Error::from(e)))?;
    Ok(in_map(&text, user))
}

/// Lines of `user address` or `user: address`; `#` begins a remark.
fn in_map(text: &str, user: &str) -> Option<String> {
    let lines = text.lines().map(|l| l.split('#').next().unwrap_or_default());
    lines.into_iter().find_map(|line| {
        // Names may have blanks in them; an address has some only where `<` is in it.
        let line = line.trim();
        let (name, address) = match line.contains('<') {
            true => line.split_once(SEPARATORS)?,
            false => line.rsplit_once(SEPARATORS)?,
        };
        let name = name.trim_end_matches(SEPARATORS);
        (name == user).then(|| address.trim_start_matches(SEPARATORS).to_owned())
    })
}

/// The part of a gecos field that is an address.
fn in_gecos(gecos: &str) -> Option<String> {
    let words = gecos.split([',', ' ', '<', '>', ';']);
    let mut found = words.filter(|w| w.parse::<lettre::Address>().is_ok());
    found.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_map_comes_first_then_gecos_then_the_pattern() {
        let map = "# who\nalice  a.liddell@example.org # left\nbob:\tbob@b.example\nrob bob@other\njohn smith : js@x\njohn j@x\neve Eve M <e@x>\n";
        assert_eq!(in_map(map, "alice").as_deref(), Some("a.liddell@example.org"));
        assert_eq!(in_map(map, "bob").as_deref(), Some("bob@b.example"));
        assert_eq!(in_map(map, "ali"), None);
        assert_eq!(in_map(map, "john smith").as_deref(), Some("js@x"));
        assert_eq!(in_map(map, "john").as_deref(), Some("j@x"));
        assert_eq!(in_map(map, "eve").as_deref(), Some("Eve M <e@x>"));
        assert_eq!(
            in_gecos("Alice L,Room 1,<alice@x.example>").as_deref(),
            Some("alice@x.example")
        );
        assert_eq!(in_gecos("Alice L,Room 1,@home"), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), map).unwrap();
        let addresses = Addresses {
            map: Some(file.path().to_owned()),
            gecos: false,
        };
        assert_eq!(of("bob", &addresses, "{user}@d").unwrap(), "bob@b.example");
        assert_eq!(of("carol", &addresses, "{user}@d").unwrap(), "carol@d");
        let gone = Addresses {
            map: Some("/nowhere/at/all".into()),
            gecos: false,
        };
        assert!(of("bob", &gone, "{user}@d").is_err());
    }
}
