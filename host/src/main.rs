//! The binary `wasmill`: see the library's `cli`.

fn main() -> std::process::ExitCode {
    wasmill::cli::main()
}
