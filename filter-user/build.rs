//! Temporary.
fn main() -> anyhow::Result<()> {
    // SAFETY: single-threaded.
    unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "1") };
    println!("cargo:rerun-if-changed=../filter-common");
    aya_build::build_ebpf(
        [aya_build::Package {
            name: "filter-ebpf",
            root_dir: "../filter-ebpf",
            ..Default::default()
        }],
        aya_build::Toolchain::Custom("1.95.0"),
    )
}
