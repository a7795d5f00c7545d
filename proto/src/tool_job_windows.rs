//! The name under which the processes of a tool that a service has started can be ended by its client: a job's.

/// The job of the tool whose first process is `tool`, started by the service whose process is `service`.
pub fn name(service: u32, tool: u32) -> String {
    format!(r"Global\zccache-tool-{service}-{tool}")
}
