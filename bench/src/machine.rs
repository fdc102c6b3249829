//! What the figures were measured on.

use std::fs;

use anyhow::Result;

/// Processor, cores, memory and kernel in one line.
pub fn describe() -> Result<String> {
    let processor = fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism()?;
    let uname = rustix::system::uname();
    let memory = rustix::system::sysinfo();
    let gib = memory.totalram as f64 * f64::from(memory.mem_unit) / f64::from(1 << 30);
    let kernel = uname.release().to_string_lossy();
    Ok(format!(
        "{processor}, {cores} cores, {gib:.0} GiB, Linux {kernel}"
    ))
}
