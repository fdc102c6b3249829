//! What the measuring program, the tree generator and the tests share.

pub mod far;
pub mod random;
