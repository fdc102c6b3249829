//! What the measuring program and the tree generator share.

pub mod random;
