//! zccache's actors and the plain components they are shells of.

pub mod digest;
pub mod invocation;
pub mod observation;
pub mod observer;
pub mod plan;
pub mod signature;
