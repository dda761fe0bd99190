;; Begins with a table of a hundred million elements.
(module
  (memory (export "memory") 1)
  (table 100000000 funcref))
