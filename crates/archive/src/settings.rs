//! A store as the configuration names it.

use std::path::{Path, PathBuf};

/// A store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name.
    pub name: String,
    /// Where it is, as it was written.
    pub url: String,
    /// The same, taken apart.
    pub place: Place,
    /// Requests at a time.
    pub concurrency: usize,
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a directory: `file:///PATH`.
    Directory(PathBuf),
}

/// Why words name no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// A kind of store that is not built yet.
    #[error("{0}:// is not supported in this version")]
    Later(String),
    /// It is nothing that names a store.
    #[error("it names no store")]
    Unknown,
    /// The path is not absolute, or not in its shortest form.
    #[error("the path must be absolute, and have no empty name, . or .. in it")]
    Path,
}

impl Place {
    /// Reads a URL.
    ///
    /// # Errors
    /// Why it names no store.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::Unknown)?;
        match scheme {
            "file" => directory(rest).map(Self::Directory).ok_or(UrlError::Path),
            "s3" | "swift" => Err(UrlError::Later(scheme.to_owned())),
            _ => Err(UrlError::Unknown),
        }
    }
}

/// An absolute path that is the only way to write it, and not the root.
fn directory(path: &str) -> Option<PathBuf> {
    let below = path.strip_prefix('/')?;
    let is_name = |name: &str| !name.is_empty() && name != "." && name != "..";
    below.split('/').all(is_name).then(|| Path::new(path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_named_in_one_way_only() {
        let of = |url: &str| Place::parse(url);
        assert_eq!(
            of("file:///mnt/cold/p"),
            Ok(Place::Directory("/mnt/cold/p".into()))
        );
        for path in [
            "file://mnt/cold",
            "file:///",
            "file:///mnt//cold",
            "file:///mnt/../etc",
            "file:///mnt/cold/",
        ] {
            assert_eq!(of(path), Err(UrlError::Path), "{path}");
        }
        for url in ["/mnt/cold", "cold", "ftp://host/x", ""] {
            assert_eq!(of(url), Err(UrlError::Unknown), "{url}");
        }
        assert_eq!(of("s3://bucket/p"), Err(UrlError::Later("s3".into())));
    }
}
