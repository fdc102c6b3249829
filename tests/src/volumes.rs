//! One of several volumes, as `status` tells of it.

use serde_json::Value;

use crate::Agent;
use crate::wait::{LONG, until};

/// The whole of `status`; none: the agent does not answer.
pub fn whole_status(agent: &Agent) -> Option<Value> {
    let answer = agent.ctl().run(["status", "--output", "json"]);
    (answer.code == 0).then(|| answer.json())
}

/// A volume of it.
///
/// # Panics
/// When there is none of this name.
pub fn volume_named(status: &Value, name: &str) -> Value {
    let all = status.get("volumes").and_then(Value::as_array);
    let found = all.and_then(|all| all.iter().find(|v| v.get("name").is_some_and(|n| n == name)));
    found.unwrap_or_else(|| panic!("no {name} in {status}")).clone()
}

/// Waits until a volume is in a state, and returns what `status` tells of it.
///
/// # Panics
/// When it does not in time.
pub fn wait_for_state(agent: &Agent, name: &str, state: &str) -> Value {
    until(&format!("{name} is {state}"), LONG, || {
        let volume = volume_named(&whole_status(agent)?, name);
        (volume.get("state")? == state).then_some(volume)
    })
}

/// The gaps of a volume that have this cause.
pub fn gaps_of(volume: &Value, cause: &str) -> Vec<Value> {
    let gaps = volume.get("gaps").and_then(Value::as_array).into_iter().flatten();
    gaps.filter(|g| g.get("cause").is_some_and(|c| c == cause))
        .cloned()
        .collect()
}
