//! What a collector cannot see. The same words stand in `status`, `plan`, `explain`, `doctor`, the metrics and the handbook.

/// A kind of use, or of knowledge about it, that a collector does not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blind {
    /// Uses on other hosts that share the file system.
    OtherHosts,
    /// Clients of a file server on this host that read from caches of their own.
    ClientCaches,
    /// Files that are opened by handle, as file servers do.
    Handles,
    /// Files that are used by a name outside of the volume.
    LinksOutside,
    /// Descriptors that were open before the collector began to watch.
    OpenBefore,
    /// Memory mappings that are used after the file was closed.
    Mappings,
    /// Loop devices and the like whose image a file is.
    Images,
    /// Who used a file.
    Who,
    /// Names that change between two scans.
    Names,
    /// Sizes, modes and times of files that change without the file being opened.
    Attributes,
    /// Everything between two looks.
    BetweenLooks,
    /// Uses that go around the mount that is watched.
    Bypass,
}

impl Blind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::OtherHosts,
        Self::ClientCaches,
        Self::Handles,
        Self::LinksOutside,
        Self::OpenBefore,
        Self::Mappings,
        Self::Images,
        Self::Who,
        Self::Names,
        Self::Attributes,
        Self::BetweenLooks,
        Self::Bypass,
    ];

    /// The word for programs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::OtherHosts => "other_hosts",
            Self::ClientCaches => "client_caches",
            Self::Handles => "handles",
            Self::LinksOutside => "links_outside",
            Self::OpenBefore => "open_before",
            Self::Mappings => "mappings",
            Self::Images => "images",
            Self::Who => "who",
            Self::Names => "names",
            Self::Attributes => "attributes",
            Self::BetweenLooks => "between_looks",
            Self::Bypass => "bypass",
        }
    }

    /// What is not seen, in words for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::OtherHosts => "uses on other hosts that share the file system",
            Self::ClientCaches => "reads of NFS clients from their own caches",
            Self::Handles => "files that are opened by handle, as file servers do",
            Self::LinksOutside => "uses of a file by a name outside of the volume",
            Self::OpenBefore => "descriptors that were open before the agent watched",
            Self::Mappings => "memory mappings that are used after the file was closed",
            Self::Images => "reads of a loop device whose image a file is",
            Self::Who => "which process uses a file",
            Self::Names => "names that change between two scans",
            Self::Attributes => "attributes that change between two scans while the file is not opened",
            Self::BetweenLooks => "what begins and ends between two looks",
            Self::Bypass => "uses that go around the mount",
        }
    }
}

/// How a collector knows that a file was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reads {
    /// It is told of each read.
    Seen,
    /// A scan finds the access time that a read has left. That reads leave one was proven with a file of the agent's own.
    AtScans,
    /// Reads leave no trace.
    Unknown,
}

impl Reads {
    /// The word for programs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::AtScans => "at_scans",
            Self::Unknown => "unknown",
        }
    }

    /// The same in words for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Seen => "reads are seen",
            Self::AtScans => "reads are known only as access times at scans",
            Self::Unknown => "reads are not known: the last use is the last change",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_blind_spot_has_words_of_its_own() {
        for (n, one) in Blind::ALL.iter().enumerate() {
            for other in Blind::ALL.iter().skip(n + 1) {
                assert!(one.word() != other.word() && one.words() != other.words());
            }
            assert!(one.word().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }
}
