//! Tells cargo that a new migration file changes this crate; `migrate!` alone notices edits only.
fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
