//! Prints which crate uses which, then the modules in each, and marks circles.
//!
//! ```text
//! cargo run -p purge-tests --bin structure [CRATE]...      without a name: all
//! ```

use purge_tests::structure::{Arrows, circles, crates};

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let all = crates(&purge_tests::top());
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let needs: Arrows = all.iter().map(|c| (c.name.clone(), c.needs.clone())).collect();
    println!("crates");
    print(&needs);
    for found in all.iter().filter(|c| is_wanted(&c.name)) {
        for (folder, arrows) in &found.folders {
            println!("\n{}: src/{folder}", found.name);
            print(arrows);
        }
    }
}

fn print(arrows: &Arrows) {
    for (from, to) in arrows {
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        println!("  {from:16} -> {}", to.join(" "));
    }
    for circle in circles(arrows) {
        let names: Vec<&str> = circle.iter().map(String::as_str).collect();
        println!("  CIRCLE: {}", names.join(" "));
    }
}
