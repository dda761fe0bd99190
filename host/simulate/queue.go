package simulate

// queue is the order of a chooser, for package container/heap: the object that
// leaves first is at 0. Each knows its slot.
type queue struct {
	objects []*object
	less    func(a, b *object) bool
}

func (q *queue) Len() int { return len(q.objects) }

func (q *queue) Less(i, j int) bool { return q.less(q.objects[i], q.objects[j]) }

func (q *queue) Swap(i, j int) {
	q.objects[i], q.objects[j] = q.objects[j], q.objects[i]
	q.objects[i].slot, q.objects[j].slot = i, j
}

func (q *queue) Push(x any) {
	o := x.(*object)
	o.slot = len(q.objects)
	q.objects = append(q.objects, o)
}

func (q *queue) Pop() any {
	last := len(q.objects) - 1
	o := q.objects[last]
	q.objects[last] = nil
	q.objects = q.objects[:last]
	return o
}

// first returns the object that leaves first, if there is one.
func (q *queue) first() []*object {
	if len(q.objects) == 0 {
		return nil
	}
	return q.objects[:1:1]
}
