//! What sources that watch one directory after another do not see.

use purge_model::blind::Blind;

const ALONE: &[Blind] = &[
    Blind::Handles,
    Blind::LinksOutside,
    Blind::Mappings,
    Blind::Images,
];
const ALONE_WITHOUT_WHO: &[Blind] = &[
    Blind::Handles,
    Blind::LinksOutside,
    Blind::Mappings,
    Blind::Images,
    Blind::Who,
];
const SHARED: &[Blind] = &[
    Blind::OtherHosts,
    Blind::Handles,
    Blind::LinksOutside,
    Blind::Mappings,
    Blind::Images,
    Blind::Bypass,
];
const SHARED_WITHOUT_WHO: &[Blind] = &[
    Blind::OtherHosts,
    Blind::Handles,
    Blind::LinksOutside,
    Blind::Mappings,
    Blind::Images,
    Blind::Who,
    Blind::Bypass,
];

/// `is_shared`: other hosts may use the file system; `is_nameless`: it is not told which process uses a file.
pub fn of_directories(is_shared: bool, is_nameless: bool) -> &'static [Blind] {
    match (is_shared, is_nameless) {
        (false, false) => ALONE,
        (false, true) => ALONE_WITHOUT_WHO,
        (true, false) => SHARED,
        (true, true) => SHARED_WITHOUT_WHO,
    }
}
