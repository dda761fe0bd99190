;; A driver that calls the functions for keys and values with what is wrong. The
;; number of a batch says how: at offset 16 of its frame.
(module
  (import "imgcache" "kv_get" (func $get (param i32 i32 i32 i32) (result i32)))
  (import "imgcache" "kv_scan" (func $scan (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "imgcache" "kv_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 16 16)
  (data (i32.const 512) "{\"name\":\"drawer\",\"version\":\"1.0.0\",\"kind\":\"driver\",\"requests\":[\"kv\"]}")
  (data (i32.const 700) "key")
  (data (i32.const 704) "\03\00\00\00\ff\ff\ff\7fkey")
  (func (export "imgcache_manifest") (param $buf i32) (param $cap i32) (result i32)
    (if (i32.ge_u (local.get $cap) (i32.const 69))
      (then (memory.copy (local.get $buf) (i32.const 512) (i32.const 69))))
    (i32.const 69))
  (func (export "imgcache_abi_version") (result i32) (i32.const 1))
  (func (export "imgcache_alloc") (param i32) (result i32)
    (if (result i32) (i32.lt_u (local.get 0) (i32.const 8192))
      (then (i32.const 4096)) (else (i32.const 65536))))
  (func (export "imgcache_free") (param i32 i32))
  (func (export "imgcache_apply") (param $batch i32) (param i32) (result i32)
    (local $how i32)
    (local.set $how (i32.load offset=16 (local.get $batch)))
    (if (i32.eq (local.get $how) (i32.const 1)) ;; a key beyond the memory
      (then (drop (call $get (i32.const -8) (i32.const 16) (i32.const 0) (i32.const 0)))))
    (if (i32.eq (local.get $how) (i32.const 2)) ;; room beyond the memory
      (then (drop (call $get (i32.const 700) (i32.const 3) (i32.const 1048570) (i32.const 100)))))
    (if (i32.eq (local.get $how) (i32.const 3)) ;; room of 4 GiB
      (then (drop (call $scan (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 8) (i32.const -1)))))
    (if (i32.eq (local.get $how) (i32.const 4)) ;; changes of 4 GiB
      (then (drop (call $write (i32.const 704) (i32.const -1)))))
    (if (i32.eq (local.get $how) (i32.const 5)) ;; a length that lies: a status
      (then (return (call $write (i32.const 704) (i32.const 11)))))
    (if (i32.eq (local.get $how) (i32.const 6)) ;; an empty key: a status
      (then (return (i32.sub (i32.const 0) (call $get (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))))))
    (i32.const 0))
  ;; pages that never end
  (func (export "imgcache_list") (param $after i32) (param $len i32) (param $buf i32) (param $cap i32) (result i32)
    (i32.store (local.get $buf) (i32.const 32))
    (i32.store offset=4 (local.get $buf) (i32.const 48))
    (i32.store offset=8 (local.get $buf) (i32.const 1))
    (i64.store offset=16 (local.get $buf) (i64.const 0))
    (i64.store offset=24 (local.get $buf) (i64.const 0))
    (memory.fill (i32.add (local.get $buf) (i32.const 32)) (i32.const 0) (i32.const 56))
    (i32.store offset=68 (local.get $buf) (i32.const 1))
    (i32.store8 offset=80 (local.get $buf) (i32.const 97))
    (i32.const 88))
)
