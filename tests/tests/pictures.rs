//! The pictures of the documents show what the program does now: `cargo xtask record` makes them.

use std::{fs, path::Path};

use anyhow::{Result, ensure};

#[test]
fn the_demos_picture_has_every_step_of_the_demo() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let picture = fs::read_to_string(root.join("../docs/images/demo.svg"))?;
    let mut steps = 0;
    for file in ["main.rs", "cluster.rs"] {
        let source = fs::read_to_string(root.join("src/bin/demo").join(file))?;
        // Rust may break a long call over lines.
        for call in source.split("step(").skip(1) {
            let title = call.split('"').nth(1).unwrap_or_default();
            // A long title goes on in the next row.
            let title: String = title.chars().take(80).collect();
            steps += 1;
            ensure!(
                picture.contains(&title),
                "docs/images/demo.svg does not show `{title}`: run `cargo xtask record`"
            );
        }
    }
    ensure!(steps > 6, "the demo has {steps} steps");
    Ok(())
}
