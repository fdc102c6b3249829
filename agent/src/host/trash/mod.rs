//! What runs leave in the trash.
//!
//! - [`restore`] puts it back, and counts it
//! - `freeing`   frees it when its grace has ended, or when the volume needs the space
//! - `waiting`   what stays longer than its grace
//! - `stuck`     what cannot be freed

mod freeing;
pub mod restore;
pub(super) mod stuck;
pub(super) mod waiting;
