#include <stdio.h>
int main(void) { puts("made by a compiler in a container"); return 0; }
