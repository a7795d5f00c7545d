//! zccache's actors and the plain components they are shells of.

pub mod digest;
pub mod invocation;
pub mod observation;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub mod observe_linux;
pub mod observer;
pub mod plan;
pub mod signature;
#[cfg(target_os = "linux")]
pub mod tool_run;
