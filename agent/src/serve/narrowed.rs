//! A plan for a part of a volume: the directory that its path means.

use crate::host::{Host, HostError, Wanted};

/// The same plan, for what lies below a path alone; an empty one changes nothing.
///
/// # Errors
/// When the path is no directory of a volume, or of another volume than the plan is for.
pub fn narrowed(host: &Host, mut wanted: Wanted, path: Vec<u8>) -> Result<Wanted, HostError> {
    if path.is_empty() {
        return Ok(wanted);
    }
    let Some((volume, directory)) = host.questions.places(&path, None)?.pop() else {
        return Ok(wanted);
    };
    if !wanted.volume.is_empty() && wanted.volume != volume {
        let why = format!(
            "lies on volume {volume}, and the plan is for volume {}",
            wanted.volume
        );
        return Err(HostError::Invalid { field: "path", why });
    }
    wanted.volume = volume;
    wanted.only.below = Some((directory, path));
    Ok(wanted)
}
