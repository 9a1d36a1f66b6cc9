//! The error lists of services: bounded, in pages, emptied at will.

use weir_core::ServiceId;
use weir_store::{
    ERROR_CODE_BYTES_MAX, ERROR_MESSAGE_BYTES_MAX, ERROR_REQUEST_BYTES_MAX, ERRORS_KEPT_MAX, ErrorPage,
    ServiceError, Store,
};

use crate::leases::in_ms;

pub(crate) async fn all(store: &Store) {
    the_newest_come_first(store).await;
    texts_are_cut(store).await;
    so_many_are_kept(store).await;
}

pub(crate) fn error(code: &str) -> ServiceError {
    ServiceError {
        code: code.into(),
        message: format!("{code} was refused"),
        at: in_ms(0),
        request: "GET /transactions/authrep.xml".into(),
    }
}

fn service(id: &str) -> ServiceId {
    id.parse().unwrap()
}

/// The codes of a page, and how many there are in all: `"c b of 3"`.
pub(crate) async fn codes(store: &Store, id: &str, page: usize, per_page: usize) -> String {
    let ErrorPage { errors, total } = store.errors(&service(id), page, per_page).await.unwrap();
    let codes: Vec<&str> = errors.iter().map(|error| error.code.as_str()).collect();
    format!("{} of {total}", codes.join(" "))
}

async fn the_newest_come_first(store: &Store) {
    assert_eq!(codes(store, "erring", 1, 10).await, " of 0");
    let first = error("a");
    store.keep_error(&service("erring"), &first).await.unwrap();
    for code in ["b", "c"] {
        store.keep_error(&service("erring"), &error(code)).await.unwrap();
    }
    store.keep_error(&service("other"), &error("d")).await.unwrap();
    assert_eq!(codes(store, "erring", 1, 10).await, "c b a of 3");
    assert_eq!(codes(store, "erring", 0, 2).await, "c b of 3", "the first page is page 1");
    assert_eq!(codes(store, "erring", 2, 2).await, "a of 3");
    assert_eq!(codes(store, "erring", 3, 2).await, " of 3");
    assert_eq!(codes(store, "erring", 1, 0).await, " of 3");
    assert_eq!(codes(store, "erring", usize::MAX, usize::MAX).await, " of 3");
    let page = store.errors(&service("erring"), 3, 1).await.unwrap();
    assert_eq!(page.errors, [first], "all that was said of it");
    for _ in 0..2 {
        store.forget_errors(&service("erring")).await.unwrap();
        assert_eq!(codes(store, "erring", 1, 10).await, " of 0");
    }
    assert_eq!(codes(store, "other", 1, 10).await, "d of 1");
    store.keep_error(&service("erring"), &error("e")).await.unwrap();
    assert_eq!(codes(store, "erring", 1, 10).await, "e of 1");
}

async fn texts_are_cut(store: &Store) {
    let long = "ä".repeat(4_000);
    let error = ServiceError { code: long.clone(), message: long.clone(), request: long, ..error("") };
    store.keep_error(&service("long"), &error).await.unwrap();
    let page = store.errors(&service("long"), 1, 1).await.unwrap();
    let ServiceError { code, message, request, .. } = &page.errors[0];
    let lengths = [code, message, request].map(String::len);
    assert_eq!(lengths, [ERROR_CODE_BYTES_MAX, ERROR_MESSAGE_BYTES_MAX, ERROR_REQUEST_BYTES_MAX]);
}

async fn so_many_are_kept(store: &Store) {
    let kept = (0..ERRORS_KEPT_MAX + 5).map(|number| {
        let error = error(&number.to_string());
        async move { store.keep_error(&service("many"), &error).await.unwrap() }
    });
    for kept in kept {
        kept.await;
    }
    assert_eq!(codes(store, "many", 1, 2).await, "1004 1003 of 1000");
    assert_eq!(codes(store, "many", 500, 2).await, "6 5 of 1000");
    let all = store.errors(&service("many"), 1, usize::MAX).await.unwrap();
    assert_eq!(all.errors.len(), ERRORS_KEPT_MAX);
}
