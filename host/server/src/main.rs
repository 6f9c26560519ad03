//! The `vivarium` program.

/// Requests are allocated on the thread of their client and freed on that of the Machine; glibc's
/// allocator spends a seventh of the server's time on that, this one half as much.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    server::cli::main()
}
