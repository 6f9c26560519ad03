//! The `vivarium` program.

/// Requests are allocated on the thread of their client and freed on that of the Machine; glibc's
/// allocator spends a seventh of the server's time on that, this one half as much. Without huge pages,
/// which cost tens of MiB and gain nothing that was measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    server::cli::main()
}
