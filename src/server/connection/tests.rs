use super::*;
use crate::account::Kind;
use crate::config::Enabled;
use crate::route::Route;
use crate::server::exchange::Received;
use crate::server::exchange::{Exchange, Then, Waits, on_deadline};
use crate::server::slot::Slot;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::LazyLock;

const MAX_BODY: usize = 1 << 20;
const IDLE: Duration = Duration::from_secs(75);

static MEMORY: LazyLock<Memory> = LazyLock::new(|| Memory::new(MAX_BODY, 1 << 20, 1000));
/// Another request waits for the large budget.
static NO_MEMORY: LazyLock<Memory> = LazyLock::new(|| {
    let memory = Memory::new(MAX_BODY, 1 << 20, 1000);
    memory.wait_for_grant(Slot::new(0), Kind::Large, usize::MAX);
    memory
});

fn with(memory: &Memory) -> Bounds<'_> {
    let max_wait = Duration::from_secs(7);
    Bounds { max_body: MAX_BODY, memory, enabled: Enabled::default(), admits_heads: false, idle: IDLE, max_wait }
}

/// A connection, and its client.
fn pair() -> (Connection, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_nodelay(true).unwrap();
    let (stream, address) = listener.accept().unwrap();
    let accepted = Accepted { stream, peer: Peer::new(address.ip(), false) };
    (Connection::new(accepted, Instant::now(), IDLE), client)
}

/// Sends, and continues until all of it was read.
fn send(connection: &mut Connection, client: &mut TcpStream, text: &str, bounds: Bounds<'_>) -> Advanced {
    client.write_all(text.as_bytes()).unwrap();
    let mut scratch = [0; 64 << 10];
    let mut unread = text.len();
    loop {
        while !connection.has_unread() {
            std::thread::yield_now()
        }
        let before = rustix::io::ioctl_fionread(connection.stream()).unwrap() as usize;
        let advanced = connection.advance(&mut scratch, true, bounds, &|_| Ok(()));
        unread = unread.saturating_sub(before);
        if unread == 0 || !matches!(advanced, Advanced::Wait(_)) {
            return advanced;
        }
    }
}

fn serve(connection: &mut Connection, bounds: Bounds<'_>) -> Advanced {
    let frame = Frame { id: "i".into(), is_head: false, is_http_10: false, close: false };
    connection.queue_reply(Reply::empty(204), None, &frame);
    connection.advance(&mut [0; 4096], false, bounds, &|_| Ok(()))
}

fn received(client: &mut TcpStream) -> String {
    client.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    let _ = client.read_to_end(&mut bytes);
    client.set_nonblocking(false).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn post(length: usize, body: &str) -> String {
    format!("POST /job HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[test]
fn a_request_in_pieces_is_served_once_and_the_connection_stays_open() {
    let (mut connection, mut client) = pair();
    let text = post(3, "abc");
    let (first, second) = text.split_at(20);
    assert!(matches!(send(&mut connection, &mut client, first, with(&MEMORY)), Advanced::Wait(Interest::Readable)));
    assert!(connection.is_unfinished());
    let Advanced::Serve(request) = send(&mut connection, &mut client, second, with(&MEMORY)) else {
        panic!("no request")
    };
    assert_eq!((request.method(), request.body()), ("POST", &b"abc"[..]));
    assert!(matches!(serve(&mut connection, with(&MEMORY)), Advanced::Wait(Interest::Readable)));
    assert!(connection.is_idle());
    assert_eq!(received(&mut client).matches("HTTP/1.1 ").count(), 1);
}

#[test]
fn an_answered_request_is_not_rejected_for_lack_of_memory() {
    let (mut connection, mut client) = pair();
    let body = "x".repeat(40_000);
    send(&mut connection, &mut client, &post(body.len(), ""), with(&MEMORY));
    assert!(matches!(send(&mut connection, &mut client, &body, with(&MEMORY)), Advanced::Serve(_)));
    assert!(matches!(serve(&mut connection, with(&NO_MEMORY)), Advanced::Wait(Interest::Readable)));
    assert_eq!(received(&mut client).matches("HTTP/1.1 ").count(), 1);
}

#[test]
fn without_memory_a_large_request_waits_unread_and_a_small_one_does_not() {
    let (mut connection, mut client) = pair();
    let small = post(100, "a");
    assert!(matches!(send(&mut connection, &mut client, &small, with(&NO_MEMORY)), Advanced::Wait(Interest::Readable)));
    assert_eq!(received(&mut client), "");

    let (mut connection, mut client) = pair();
    let text = post(100_000, &"x".repeat(100_000));
    client.write_all(&text.as_bytes()[..50_000]).unwrap();
    while !connection.has_unread() {
        std::thread::yield_now()
    }
    let advance = |connection: &mut Connection| connection.advance(&mut [0; 4096], true, with(&NO_MEMORY), &|_| Ok(()));
    let Advanced::WaitForMemory(Kind::Large, bytes) = advance(&mut connection) else { panic!("it does not wait") };
    assert_eq!(
        bytes,
        text.len() + post(100_000, "").len() + (1 << 20),
        "its head counts twice, and it takes a large run"
    );
    connection.grant(MEMORY.try_reserve(Kind::Large, bytes).unwrap());
    assert!(matches!(advance(&mut connection), Advanced::Wait(Interest::Readable)));
    client.write_all(&text.as_bytes()[50_000..]).unwrap();
    let request = loop {
        match advance(&mut connection) {
            Advanced::Serve(request) => break request,
            advanced => assert!(matches!(advanced, Advanced::Wait(Interest::Readable)), "{advanced:?}"),
        }
    };
    assert_eq!(request.body().len(), 100_000);
}

#[test]
fn memory_is_granted_for_one_request() {
    let memory = Memory::new(MAX_BODY, 1 << 20, 1000);
    let (mut connection, mut client) = pair();
    connection.grant(memory.try_reserve(Kind::Small, 10_000).unwrap());
    let advanced = send(&mut connection, &mut client, &post(3, "abc"), with(&memory));
    assert!(matches!(advanced, Advanced::Serve(_)), "{advanced:?}");
    drop(advanced);
    serve(&mut connection, with(&memory));
    assert_eq!(memory.account.reserved_bytes(), [0; 5], "what exceeds the request is released with it");
    send(&mut connection, &mut client, &post(100_000, "a"), with(&memory));
    assert!(memory.account.reserved_bytes()[Kind::Large as usize] > 100_000);
}

#[test]
fn a_probe_is_answered_without_any_memory() {
    let memory = &Memory::new(MAX_BODY, 1 << 20, 1000);
    let fill = |kind| {
        let steps = [1 << 20, 1 << 10, 1].into_iter();
        steps.flat_map(|bytes| std::iter::from_fn(move || memory.try_reserve(kind, bytes))).collect::<Vec<_>>()
    };
    let mut held = fill(Kind::Small);
    memory.wait_for_grant(Slot::new(0), Kind::Large, usize::MAX);
    let (mut connection, mut client) = pair();
    for text in ["GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n", "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n"] {
        let advanced = send(&mut connection, &mut client, text, with(memory));
        assert!(matches!(advanced, Advanced::Serve(_)), "{advanced:?}");
        serve(&mut connection, with(memory));
    }
    let advanced = send(&mut connection, &mut client, &post(1, "a"), with(memory));
    assert!(matches!(advanced, Advanced::WaitForMemory(Kind::Small, _)), "{advanced:?}");

    held.extend(fill(Kind::Parked));
    let (mut connection, mut client) = pair();
    send(&mut connection, &mut client, &post(1, "a"), with(memory));
    assert!(received(&mut client).starts_with("HTTP/1.1 503 "), "there is no room to wait");
}

#[test]
fn a_large_body_is_slow_when_it_will_not_arrive_in_time() {
    let (mut connection, mut client) = pair();
    let begin = Instant::now();
    send(&mut connection, &mut client, &post(100_000, &"x".repeat(20_000)), with(&MEMORY));
    assert!(!connection.is_slow(begin + Duration::from_secs(5)), "a fifth in a ninth of the time");
    assert!(connection.is_slow(begin + Duration::from_secs(10)));
    assert!(connection.expire(Enabled::ALL));
    connection.advance(&mut [0; 64], false, with(&MEMORY), &|_| Ok(()));
    let reply = received(&mut client);
    assert!(reply.starts_with("HTTP/1.1 408 ") && reply.contains("too slowly while others wait"), "{reply}");
    let (mut connection, mut client) = pair();
    send(&mut connection, &mut client, &post(1000, "a"), with(&MEMORY));
    assert!(!connection.is_slow(begin + BODY), "a small one");
}

#[test]
fn a_request_that_gets_no_memory_in_time_gets_503() {
    let (mut connection, mut client) = pair();
    let advanced = send(&mut connection, &mut client, &post(100_000, ""), with(&NO_MEMORY));
    assert!(matches!(advanced, Advanced::WaitForMemory(..)), "{advanced:?}");
    let then = on_deadline(Waits::Memory(Kind::Large), Received::Part, false);
    let Then::Refuse(reason, message) = then else { panic!("{then:?}") };
    connection.refuse(Status::new(reason, message), Enabled::ALL);
    connection.advance(&mut [0; 64], false, with(&NO_MEMORY), &|_| Ok(()));
    let reply = received(&mut client);
    assert!(reply.starts_with("HTTP/1.1 503 ") && reply.contains("Retry-After: 1"), "{reply}");
}

#[test]
fn a_connection_that_waits_for_its_client_can_be_evicted() {
    for text in ["", "\r", "GET / HTTP/1.1\r\n", &post(10, "a")] {
        let (mut connection, mut client) = pair();
        if !text.is_empty() {
            send(&mut connection, &mut client, text, with(&MEMORY));
        }
        assert!(connection.is_evictable(), "{text:?}");
    }
    // it pipelines and does not read
    let (mut connection, mut client) = pair();
    let two = "GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n".repeat(2);
    assert!(matches!(send(&mut connection, &mut client, &two, with(&MEMORY)), Advanced::Serve(_)));
    assert!(!connection.is_evictable(), "its next request was received");
    let frame = Frame { id: "i".into(), is_head: false, is_http_10: false, close: false };
    connection.queue_reply(Reply::json(200, vec![b'x'; 10 << 20]), None, &frame);
    let advanced = connection.advance(&mut [0; 4096], false, with(&MEMORY), &|_| Ok(()));
    assert!(matches!(advanced, Advanced::Wait(Interest::Writable)), "{advanced:?}");
    assert!(connection.is_evictable());
}

#[test]
fn a_408_names_what_is_missing() {
    for (text, missing) in [("GET / HTTP/1.1\r\n", "the head"), (&post(10, "a"), "the body")] {
        let (mut connection, mut client) = pair();
        send(&mut connection, &mut client, text, with(&MEMORY));
        assert!(connection.expire(Enabled::ALL));
        connection.advance(&mut [0; 64], false, with(&MEMORY), &|_| Ok(()));
        let reply = received(&mut client);
        assert!(reply.starts_with("HTTP/1.1 408 ") && reply.contains(missing), "{reply}");
    }
    assert!(!pair().0.expire(Enabled::ALL), "an idle one is closed without a reply");
}

#[test]
fn an_empty_line_does_not_extend_the_idle_deadline() {
    let (mut connection, mut client) = pair();
    let (since, deadline) = (connection.waits_since(), connection.deadline());
    send(&mut connection, &mut client, "\r\n", with(&MEMORY));
    assert!(connection.is_idle());
    assert_eq!((connection.waits_since(), connection.deadline()), (since, deadline));
    send(&mut connection, &mut client, "G", with(&MEMORY));
    assert!(connection.deadline() < deadline, "a head has less time");
    let in_head = connection.deadline();
    send(&mut connection, &mut client, "E", with(&MEMORY));
    assert_eq!(connection.deadline(), in_head, "and a slow client does not extend it");
}

#[test]
fn an_idle_one_holds_nothing_of_its_last_request() {
    let mut exchange = Exchange::new(Slot::new(0), pair().0);
    exchange.request = Request { bytes: vec![b'x'; 1000], ..Request::default() };
    exchange.route = Ok(Route::Job("x".repeat(1000)));
    exchange.end();
    assert!(exchange.request.bytes.capacity() == 0 && matches!(exchange.route, Ok(Route::Live)));
}

#[test]
fn one_that_waits_for_us_is_not_evicted() {
    let mut exchange = Exchange::new(Slot::new(0), pair().0);
    assert_eq!(exchange.on_eviction(), Then::Close);
    let others = Waits::ALL.into_iter().filter(|waits| !matches!(waits, Waits::Client(_)));
    for waits in others {
        exchange.waits = waits;
        assert_ne!(exchange.on_eviction(), Then::Close, "{waits:?}");
    }
}

#[test]
fn a_connection_with_unread_input_is_not_evicted() {
    let (connection, mut client) = pair();
    assert!(connection.is_evictable());
    client.write_all(b"G").unwrap();
    while !connection.has_unread() {
        std::thread::yield_now()
    }
    assert!(!connection.is_evictable());
}

#[test]
fn a_pipelining_client_yields_to_others() {
    let (mut connection, mut client) = pair();
    let text = "GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n".repeat(MAX_IN_A_ROW as usize + 1);
    let mut advanced = send(&mut connection, &mut client, &text, with(&MEMORY));
    let mut served = 0;
    while let Advanced::Serve(_) = advanced {
        served += 1;
        advanced = serve(&mut connection, with(&MEMORY));
    }
    assert!(matches!(advanced, Advanced::Wait(Interest::Writable)), "{advanced:?}");
    assert_eq!(served, MAX_IN_A_ROW);
}

#[test]
fn a_client_that_resets_the_connection_is_noticed_beside_unread_input() {
    let (connection, mut client) = pair();
    client.write_all(b"unread").unwrap();
    while !connection.has_unread() {
        std::thread::yield_now()
    }
    assert!(!connection.is_reset());
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let begin = Instant::now();
    while !connection.is_reset() {
        assert!(begin.elapsed() < Duration::from_secs(10), "it is not noticed");
        std::thread::yield_now()
    }
}
