;; Calls two functions, each of which calls two, sixty deep: it has no loop.
(module
  (memory (export "memory") 1)
  (global $next (mut i32) (i32.const 1024))
  (data (i32.const 512) "{\"name\":\"calls\",\"version\":\"1.0.0\",\"kind\":\"policy\",\"capabilities\":[\"score\"]}")
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
  (func $two (param $n i32)
    (if (local.get $n)
      (then
        (call $two (i32.sub (local.get $n) (i32.const 1)))
        (call $two (i32.sub (local.get $n) (i32.const 1))))))
  (func (export "imgcache_score") (param i32 i32) (result i32)
    (call $two (i32.const 60))
    (i32.const 0))
)
