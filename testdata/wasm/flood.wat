;; Logs 100000 lines at each call, and scores 0.
(module
  (import "imgcache" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  (global $next (mut i32) (i32.const 1024))
  (data (i32.const 512) "{\"name\":\"flood\",\"version\":\"1.0.0\",\"kind\":\"policy\",\"capabilities\":[\"score\"]}")
  (func (export "imgcache_manifest") (param $buf i32) (param $cap i32) (result i32)
    (if (i32.ge_u (local.get $cap) (i32.const 75))
      (then (memory.copy (local.get $buf) (i32.const 512) (i32.const 75))))
    (i32.const 75))
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
  (data (i32.const 16) "look at me")
  (func (export "imgcache_score") (param $frame i32) (param $scores i32) (result i32)
    (local $i i32)
    (loop $again
      (call $log (i32.const 1) (i32.const 16) (i32.const 10))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 100000))))
    (memory.fill (local.get $scores) (i32.const 0) (i32.mul (i32.load offset=8 (local.get $frame)) (i32.const 8)))
    (i32.const 0))
)
