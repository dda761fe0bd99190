;; Answers lengths that cannot be: a snapshot that grows each time it is asked
;; for, more keys than there is room for, and lines of log beyond its memory.
(module
  (import "imgcache" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  (global $next (mut i32) (i32.const 1024))
  (data (i32.const 512) "{\"name\":\"boast\",\"version\":\"1.0.0\",\"kind\":\"policy\",\"capabilities\":[\"stateful\",\"snapshot\"]}")
  (func (export "imgcache_manifest") (param $buf i32) (param $cap i32) (result i32)
    (memory.copy (local.get $buf) (i32.const 512) (i32.const 89))
    (i32.const 89))
  (func (export "imgcache_abi_version") (result i32) (i32.const 1))
  ;; alloc hands out ever more memory and grows it as needed; free forgets.
  (func (export "imgcache_alloc") (param $size i32) (result i32)
    (local $p i32)
    (local.set $p (global.get $next))
    (global.set $next (i32.and (i32.add (i32.add (local.get $p) (local.get $size)) (i32.const 7)) (i32.const -8)))
    (loop $grow
      (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
        (then
          (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then (return (i32.const 0))))
          (br $grow))))
    (local.get $p))
  (func (export "imgcache_free") (param i32 i32))
  (func (export "imgcache_observe") (param i32) (result i32)
    (call $log (i32.const 1) (i32.const -8) (i32.const 16))
    (i32.const 0))
  (func (export "imgcache_select") (param i64 i64 i32 i32) (result i32)
    (i32.add (local.get 3) (i32.const 1)))
  (func (export "imgcache_snapshot") (param $buf i32) (param $cap i32) (result i32)
    (i32.mul (local.get $cap) (i32.const 2)))
  (func (export "imgcache_restore") (param i32 i32) (result i32) (i32.const 0))
)
